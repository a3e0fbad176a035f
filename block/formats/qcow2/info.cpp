// Qcow2Image::format_info: what `info` shows of a qcow2 image.
#include "block/formats/qcow2/image.h"

namespace vmm::block::qcow2 {

Task<Result<FormatInfo>> Qcow2Image::format_info() {
    Header const& h = store_->header();
    FormatInfo info;
    info.cluster_size_bytes = store_->geometry().cluster();
    info.encrypted = h.crypt_method != CryptMethod::none;
    info.dirty = h.has(incompatible_dirty);
    info.specific_type = "qcow2";
    Value& v = info.specific_data;
    v.set("compat", h.version < 3 ? "0.10" : "1.1");
    v.set("compression-type", h.compression == CompressionType::zlib ? "zlib" : "zstd");
    if (h.version >= 3) v.set("lazy-refcounts", h.lazy_refcounts());
    if (!bitmaps_->bitmaps().empty()) {
        Value list = Value::list();
        for (BitmapInfo const& b : bitmaps_->bitmaps()) {
            Value flags = Value::list();
            if (b.in_use) flags.add("in-use");
            if (b.enabled) flags.add("auto");
            Value one;
            one.set("flags", std::move(flags)).set("name", b.name).set("granularity", b.granularity_bytes);
            list.add(std::move(one));
        }
        v.set("bitmaps", std::move(list));
    }
    v.set("refcount-bits", std::uint64_t(1) << h.refcount_order);
    if (h.crypt_method != CryptMethod::none) v.set("encrypt", encryption_info(h.crypt_method, encryption_.luks));
    if (h.external_data()) {
        v.set("data-file", h.data_file);
        v.set("data-file-raw", h.raw_external_data());
    }
    if (h.version >= 3) {
        v.set("corrupt", h.has(incompatible_corrupt));
        v.set("extended-l2", h.extended_l2());
    }
    co_return info;
}

} // namespace vmm::block::qcow2
