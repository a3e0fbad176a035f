// vmm-img: the disk image tool. Everything is in its commands.
#include "block/tools/img/command.h"

#include <cstdio>

int main(int argc, char** argv) {
    auto tool = vmm::block::Tool::create(argc > 0 ? argv[0] : "vmm-img");
    if (!tool.ok()) {
        std::fprintf(stderr, "vmm-img: %s\n", tool.error().message().c_str());
        return 1;
    }
    std::vector<std::string> words(argv + (argc > 0), argv + argc);
    int status = vmm::block::run_img(**tool, words);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) return status ? status : 1;
    return status;
}
