#include "devices/pci/piix4_smbus.h"

namespace vmm::dev {

namespace {
enum : unsigned { reg_smbhststs = 0, reg_smbslvsts = 1, reg_smbhstcnt = 2, reg_smbhstcmd = 3, reg_smbhstadd = 4 };
enum : unsigned { reg_smbhstdat0 = 5, reg_smbhstdat1 = 6, reg_smbblkdat = 7, reg_smbslvcnt = 8 };
enum : std::uint8_t { sts_dev_err = 0x04, sts_failed = 0x10, sts_clearable = 0x1e };
enum : std::uint8_t { cnt_kill = 0x02, cnt_start = 0x40, cnt_kept = 0x1d };
} // namespace

std::uint8_t& Piix4Smbus::next_block_byte() {
    std::uint8_t& byte = state_.block[state_.block_index];
    state_.block_index = std::uint8_t((state_.block_index + 1) % block_size);
    return byte;
}

std::uint64_t Piix4Smbus::read(std::uint64_t offset, unsigned) {
    switch (offset) {
    case reg_smbhststs: return state_.host_status;
    case reg_smbslvsts: return state_.slave_status;
    case reg_smbhstcnt: state_.block_index = 0; return state_.host_control;
    case reg_smbhstcmd: return state_.host_command;
    case reg_smbhstadd: return state_.host_address;
    case reg_smbhstdat0: return state_.data0;
    case reg_smbhstdat1: return state_.data1;
    case reg_smbblkdat: return next_block_byte();
    case reg_smbslvcnt: return state_.slave_control;
    default: return 0;
    }
}

void Piix4Smbus::write(std::uint64_t offset, unsigned, std::uint64_t wide) {
    auto value = std::uint8_t(wide);
    switch (offset) {
    case reg_smbhststs: state_.host_status &= std::uint8_t(~(value & sts_clearable)); break;
    case reg_smbslvsts: state_.slave_status &= std::uint8_t(~value); break;
    case reg_smbhstcnt:
        state_.host_control = value & cnt_kept;
        if (value & cnt_kill)
            state_.host_status |= sts_failed;
        else if (value & cnt_start)
            state_.host_status |= sts_dev_err;
        break;
    case reg_smbhstcmd: state_.host_command = value; break;
    case reg_smbhstadd: state_.host_address = value; break;
    case reg_smbhstdat0: state_.data0 = value; break;
    case reg_smbhstdat1: state_.data1 = value; break;
    case reg_smbblkdat: next_block_byte() = value; break;
    case reg_smbslvcnt: state_.slave_control = value & 0x0f; break;
    default: break;
    }
}

Result<void> Piix4Smbus::check(State const& state) {
    if (state.block_index >= block_size) return error("the SMBus block index is out of range");
    return {};
}

} // namespace vmm::dev
