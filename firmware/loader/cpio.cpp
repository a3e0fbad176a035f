#include "firmware/loader/cpio.h"

#include "vmm/base/checked.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>

namespace vmm::firmware {

namespace {

constexpr int max_depth = 128; // directories inside each other
constexpr std::size_t max_entries = 2'000'000;
constexpr std::uint64_t max_archive = FileSource::max_size;

struct Entry {
    std::string name; // below the directory, without leading slash
    std::string path; // on the host; empty for nodes added by us
    std::uint32_t mode = 0;
    std::uint32_t mtime = 0;
    std::uint64_t size = 0;
    std::uint32_t rdev_major = 0, rdev_minor = 0;
    std::pair<dev_t, ino_t> identity{}; // of the host file
    std::uint32_t inode = 0, links = 1;
    bool carries_data = true; // of several hard links the last one has the content
};

class Packer {
public:
    explicit Packer(std::string root) : root_(std::move(root)) {}
    Result<PackedDirectory> run();

private:
    Result<void> collect(std::string const& below, int depth);
    Result<void> add(std::string const& name, int depth);
    void add_missing_node(char const* name, std::uint32_t mode, unsigned major, unsigned minor);
    void number_inodes();
    Result<void> write(Entry const& entry);
    Result<void> write_content(Entry const& entry);
    void header(Entry const& entry, std::uint64_t size);
    void pad() { out_.archive.resize(align_up<std::size_t>(out_.archive.size(), 4)); }
    void append(std::string_view text) { out_.archive.insert(out_.archive.end(), text.begin(), text.end()); }

    std::string root_;
    std::vector<Entry> entries_;
    PackedDirectory out_;
};

Result<void> Packer::collect(std::string const& below, int depth) {
    std::string const path = below.empty() ? root_ : root_ + "/" + below;
    if (depth > max_depth) return error("initrd directory '{}' is nested more than {} deep", path, max_depth);
    std::error_code failure;
    std::filesystem::directory_iterator it(path, failure), end;
    if (failure) return error_from_errno(failure.value(), "could not read initrd directory '{}'", path);
    std::vector<std::string> names;
    for (; it != end; it.increment(failure)) {
        if (failure) return error_from_errno(failure.value(), "could not read initrd directory '{}'", path);
        names.push_back(it->path().filename().string());
    }
    std::sort(names.begin(), names.end());
    for (std::string const& name : names) TRY(add(below.empty() ? name : below + "/" + name, depth));
    return {};
}

Result<void> Packer::add(std::string const& name, int depth) {
    if (entries_.size() >= max_entries)
        return error("initrd directory '{}' has more than {} files", root_, max_entries);
    Entry entry;
    entry.name = name;
    entry.path = root_ + "/" + name;
    struct stat st {};
    if (::lstat(entry.path.c_str(), &st) != 0) return error_from_errno(errno, "could not read '{}'", entry.path);
    if (S_ISSOCK(st.st_mode)) {
        out_.notes.push_back(fmt::format("left the socket /{} out of the initrd packed from '{}'", name, root_));
        return {};
    }
    entry.mode = st.st_mode;
    entry.mtime = std::uint32_t(st.st_mtime);
    entry.identity = {st.st_dev, st.st_ino};
    if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) entry.size = std::uint64_t(st.st_size);
    if (entry.size > UINT32_MAX)
        return error("'{}' is larger than 4 GiB, the most a cpio archive can hold", entry.path);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
        entry.rdev_major = major(st.st_rdev);
        entry.rdev_minor = minor(st.st_rdev);
    }
    entries_.push_back(std::move(entry));
    if (S_ISDIR(st.st_mode)) TRY(collect(name, depth + 1));
    return {};
}

void Packer::add_missing_node(char const* name, std::uint32_t mode, unsigned major, unsigned minor) {
    auto has = [this](std::string_view wanted) {
        return std::any_of(entries_.begin(), entries_.end(), [&](Entry const& e) { return e.name == wanted; });
    };
    if (has(name)) return;
    if (!has("dev")) {
        Entry dev;
        dev.name = "dev";
        dev.mode = S_IFDIR | 0755;
        entries_.push_back(dev);
    }
    Entry node;
    node.name = name;
    node.mode = mode;
    node.rdev_major = major;
    node.rdev_minor = minor;
    entries_.push_back(node);
    out_.notes.push_back(fmt::format("added the device node /{} to the initrd packed from '{}'", name, root_));
}

// Small numbers in order of appearance, so that the archive does not depend on the host's inode numbers.
void Packer::number_inodes() {
    std::map<std::pair<dev_t, ino_t>, std::vector<std::size_t>> shared;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        entries_[i].inode = std::uint32_t(i + 1);
        if (S_ISDIR(entries_[i].mode))
            entries_[i].links = 2;
        else if (!entries_[i].path.empty())
            shared[entries_[i].identity].push_back(i);
    }
    for (auto const& [identity, members] : shared)
        for (std::size_t i : members) {
            entries_[i].inode = std::uint32_t(members.front() + 1);
            entries_[i].links = std::uint32_t(members.size());
            entries_[i].carries_data = i == members.back();
        }
}

void Packer::header(Entry const& e, std::uint64_t size) {
    constexpr unsigned no_checksum = 0, root_id = 0, device = 0;
    append(fmt::format("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}", e.inode,
                       e.mode, root_id, root_id, e.links, e.mtime, size, device, device, e.rdev_major, e.rdev_minor,
                       e.name.size() + 1, no_checksum));
    append(e.name);
    out_.archive.push_back(0);
    pad();
}

Result<void> Packer::write(Entry const& e) {
    bool const file = S_ISREG(e.mode), link = S_ISLNK(e.mode);
    std::uint64_t const size = (file || link) && e.carries_data ? e.size : 0;
    if (out_.archive.size() + size > max_archive)
        return error("initrd directory '{}' has more than {} bytes of files", root_, max_archive);
    header(e, size);
    if (size == 0) return {};
    if (file) {
        TRY(write_content(e));
    } else {
        std::string target(size, '\0');
        if (::readlink(e.path.c_str(), target.data(), size) != ssize_t(size))
            return error("'{}' changed while it was being packed", e.path);
        append(target);
    }
    pad();
    return {};
}

Result<void> Packer::write_content(Entry const& e) {
    FileSource const source = TRY(FileSource::open(e.path, "could not read initrd file"));
    if (source.size() != e.size) return error("'{}' changed while it was being packed", e.path);
    Bytes const content = TRY(source.read());
    out_.archive.insert(out_.archive.end(), content.begin(), content.end());
    return {};
}

Result<PackedDirectory> Packer::run() {
    TRY(collect("", 0));
    add_missing_node("dev/console", S_IFCHR | 0600, 5, 1);
    add_missing_node("dev/null", S_IFCHR | 0666, 1, 3);
    if (std::none_of(entries_.begin(), entries_.end(), [](Entry const& e) { return e.name == "init"; }))
        out_.notes.push_back(
            fmt::format("the initrd packed from '{}' has no /init; the kernel will look for a root disk", root_));
    number_inodes();
    for (Entry const& e : entries_) TRY(write(e));
    Entry trailer;
    trailer.name = "TRAILER!!!";
    header(trailer, 0);
    return std::move(out_);
}

} // namespace

Result<PackedDirectory> pack_directory(std::string const& directory) {
    std::string root = directory;
    while (root.size() > 1 && root.back() == '/') root.pop_back();
    return Packer(root).run();
}

} // namespace vmm::firmware
