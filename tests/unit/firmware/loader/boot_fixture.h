// A guest memory and temporary files for loader tests.
#pragma once
#include "firmware/loader/kernel_loader.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace vmm::firmware {

// RAM of `mib` MiB at 0 and a private directory that goes with the object.
class BootFixture {
public:
    explicit BootFixture(std::uint64_t mib) : ram_(RamBlock::create("ram", mib * MiB).value()) {
        space.map({.name = "ram", .range = AddressRange::of(0, mib * MiB), .backing = Backing::of_ram(*ram_)});
        platform.ram_below_4g = mib * MiB;
        char name[] = "/tmp/vmm-boot-test-XXXXXX";
        directory_ = ::mkdtemp(name);
    }
    ~BootFixture() { std::filesystem::remove_all(directory_); }
    BootFixture(BootFixture const&) = delete;
    BootFixture& operator=(BootFixture const&) = delete;

    std::string path(std::string const& name) const { return directory_ + "/" + name; }
    std::string file(std::string const& name, Bytes const& bytes) const {
        std::ofstream(path(name), std::ios::binary)
            .write(reinterpret_cast<char const*>(bytes.data()), std::streamsize(bytes.size()));
        return path(name);
    }
    Result<BootEntry> load(KernelOptions options) {
        KernelLoader loader = TRY(KernelLoader::create(std::move(options)));
        return loader.load(space, platform);
    }
    template <class T> T read(GuestPhys a) { return T(space.read(a, sizeof(T))); }
    std::string string(GuestPhys a) {
        std::string s;
        while (char c = char(space.read(a++, 1))) s += c;
        return s;
    }

    AddressSpace space{"memory", UINT64_MAX};
    BootPlatform platform;

private:
    std::unique_ptr<RamBlock> ram_;
    std::string directory_;
};

} // namespace vmm::firmware
