// FwCfg: the firmware configuration device: named blobs that firmware and guest kernels read through I/O ports or by
// DMA ("QEMU Firmware Configuration (fw_cfg) Device" specification).
#pragma once
#include "devices/core/roles.h"
#include "vmm/base/log.h"
#include "vmm/memory/address_space.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace vmm::dev {

// Contents are set by the machine before it runs; the guest changes only files made writable. Device lock.
class FwCfg final : public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t port = 0x510, port_size = 2; // selector (16 bits) and, at 0x511, data
    static constexpr AccessRules port_rules{.max_guest = 2, .max_impl = 2};
    static constexpr std::uint64_t dma_port = 0x514, dma_size = 8;
    static constexpr AccessRules dma_rules{.min_guest = 4, .min_impl = 4, .max_impl = 4};
    // Item keys of the specification used by us.
    enum Key : std::uint16_t { key_signature = 0x00, key_id = 0x01, key_file_directory = 0x19, key_first_file = 0x20 };
    static constexpr unsigned max_files = 0x1000;
    static constexpr std::size_t max_name = 55; // and a terminating zero

    struct State {
        std::uint16_t selected = 0;
        std::uint32_t offset = 0;          // of the next byte in the selected item
        std::uint32_t dma_high = 0;        // upper half of the next DMA structure's address
        std::vector<std::uint8_t> written; // the writable files' contents, one after the other in order of their names
    };
    struct Needs {
        DmaSpace& memory;
        Log& log;
    };
    explicit FwCfg(Needs needs);

    // A fixed item (the older, numbered ones: 0x02 UUID, 0x05 number of CPUs, ...); replaces what it held.
    void set_item(std::uint16_t key, std::vector<std::uint8_t> data);
    // A file. Fails on a name that is too long, taken, or one too many. Files get their keys in order of their names.
    Result<void> add_file(std::string name, std::vector<std::uint8_t> data);
    // A file the guest may write (by DMA), its size fixed. `on_write` is called after each write with its contents.
    Result<void> add_writable_file(std::string name, std::vector<std::uint8_t> data,
                                   std::function<void(std::vector<std::uint8_t> const&)> on_write);
    // The contents of a file now, or null.
    std::vector<std::uint8_t> const* file(std::string const& name) const;

    IoHandler& ports() { return ports_; }
    IoHandler& dma() { return dma_; }

    // Writable files keep what the guest wrote.
    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    struct Ports final : IoHandler {
        explicit Ports(FwCfg& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        FwCfg& device;
    };
    struct Dma final : IoHandler {
        explicit Dma(FwCfg& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        FwCfg& device;
    };
    struct File {
        std::vector<std::uint8_t> data;
        bool writable = false;
        std::function<void(std::vector<std::uint8_t> const&)> on_write{};
    };

    Result<void> add(std::string name, File file);
    void build_directory();
    File* selected_file();
    std::vector<std::uint8_t> const* selected_data();
    void select(std::uint16_t key);
    std::uint8_t read_byte();
    void run_dma(GuestPhys structure);
    bool transfer(std::uint32_t control, std::uint32_t length, GuestPhys address);
    bool transfer_read(std::uint32_t length, GuestPhys address);
    bool transfer_write(std::uint32_t length, GuestPhys address);
    std::vector<std::uint8_t> written_contents() const;

    Needs needs_;
    State state_;
    std::map<std::uint16_t, std::vector<std::uint8_t>> items_;
    std::map<std::string, File> files_;
    Ports ports_{*this};
    Dma dma_{*this};
};

} // namespace vmm::dev
