// Changing an existing image: its backing file's name, and the options `amend` may change.
#include "block/formats/qcow2/create.h"
#include "block/formats/qcow2/image.h"

#include <cerrno>

namespace vmm::block::qcow2 {

Task<Result<void>> Qcow2Image::change_backing(std::string filename, std::string format) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    if (!filename.empty() && store_->header().raw_external_data())
        co_return Error("Backing file and data-file-raw cannot be used at the same time", EINVAL);
    CO_TRY(co_await store_->commit());
    Header const before = store_->header();
    store_->header().backing_file = std::move(filename);
    store_->header().backing_format.reset();
    if (!store_->header().backing_file.empty() && !format.empty()) store_->header().backing_format = std::move(format);
    Result<void> result = co_await store_->write_header();
    if (!result.ok()) store_->header() = before;
    co_return result;
}

} // namespace vmm::block::qcow2
