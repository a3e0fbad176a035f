// KernelLoader: `-kernel`, `-initrd` and `-append`, entered without firmware.
#pragma once
#include "firmware/loader/boot_entry.h"
#include "firmware/loader/boot_platform.h"
#include "firmware/loader/file_source.h"

#include <optional>
#include <string>
#include <vector>

namespace vmm::firmware {

// As on the command line.
struct KernelOptions {
    std::string kernel;
    std::string append;
    std::string initrd; // empty = none; a file, a directory (packed as cpio), or for multiboot "file args,file args"
    bool check_initrd = true; // refuse a file that Linux, if that is the kernel, cannot take as an initrd
};

// Opens the files once; `load` places them at power-on and again at every reset. Not thread-safe; load is called with
// the vCPUs stopped.
class KernelLoader {
public:
    // Errors: kernel or initrd cannot be opened ("could not open kernel file 'x': No such file or directory"), or are
    // no such thing.
    static Result<KernelLoader> create(KernelOptions options);

    // Puts kernel, initrd, command line and what the kernel's boot protocol asks for into `memory` and returns the
    // state to start the boot processor in. The format is found from the kernel's content; errors name the file, the
    // format, and the formats tried.
    Result<BootEntry> load(AddressSpace& memory, BootPlatform const& platform) const;

    // Remarks worth telling the user once ("added /dev/console to the initrd packed from 'rootdir'").
    std::vector<std::string> const& notes() const { return notes_; }

private:
    KernelLoader(KernelOptions options, FileSource kernel);
    // The kernel's bytes; of a bzImage only the head, which says what it is.
    Result<Bytes> read_kernel() const;
    Result<void> open_initrd(bool for_linux);
    Result<void> open_modules();

    KernelOptions options_;
    FileSource kernel_;
    std::vector<FileSource> initrds_;       // one, or the multiboot modules
    std::vector<std::string> module_lines_; // beside initrds_: each module's "file args"
    std::vector<std::string> notes_;
};

} // namespace vmm::firmware
