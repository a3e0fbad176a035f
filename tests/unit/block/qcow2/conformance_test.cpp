// qcow2 against what every writable format must do, in each of its shapes.
#include "tests/support/image_conformance.h"

#include <gtest/gtest.h>

namespace vmm::block {

namespace {

ImageProfile profile_of(std::string options) {
    ImageProfile profile;
    profile.format = "qcow2";
    profile.create_options = std::move(options);
    profile.size_bytes = (2 << 20) + 512;
    profile.grows = profile.shrinks = true;
    profile.resizes_with_snapshots = profile.create_options != "compat=0.10";
    profile.operations = 500;
    return profile;
}

class Qcow2Conformance : public testing::TestWithParam<char const*> {};

TEST_P(Qcow2Conformance, image_conforms) { image_conforms(profile_of(GetParam())); }

INSTANTIATE_TEST_SUITE_P(shapes, Qcow2Conformance,
                         testing::Values("", "compat=0.10", "cluster_size=512", "cluster_size=512,refcount_bits=64",
                                         "cluster_size=4k,refcount_bits=8", "cluster_size=2M",
                                         "extended_l2=on,cluster_size=16k", "lazy_refcounts=on,cluster_size=4k",
                                         "preallocation=metadata,cluster_size=8k"));

TEST(Qcow2Conformance, overlay_conforms) {
    for (char const* backing : {"raw", "qcow2", "vmdk"}) {
        ImageProfile profile = profile_of("cluster_size=32k");
        profile.backing_format = backing;
        profile.qemu_reads = false;
        image_conforms(profile);
        profile.create_options = "extended_l2=on,cluster_size=16k";
        image_conforms(profile);
    }
}

TEST(Qcow2Conformance, encrypted_image_conforms) {
    for (char const* kind : {"luks,encrypt.iter-time=10", "aes"}) {
        ImageProfile profile = profile_of(std::string("encrypt.key-secret=sec0,encrypt.format=") + kind);
        profile.open_options = "encrypt.key-secret=sec0";
        profile.qemu_reads = false;
        image_conforms(profile);
    }
}

TEST(Qcow2Conformance, image_with_its_data_elsewhere_matches_the_model) {
    for (char const* options : {"data_file=%.data", "data_file=%.data,data_file_raw=on,cluster_size=4k"}) {
        image_matches_flat_model(profile_of(options));
        image_survives_concurrent_requests(profile_of(options));
    }
}

} // namespace
} // namespace vmm::block
