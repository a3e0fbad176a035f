#include "vmm/kvm/kvm_irq.h"

#include "vmm/kvm/kvm_abi.h"

#include <algorithm>
#include <cstring>

namespace vmm::kvm {

namespace {
constexpr unsigned pic_pins = 16, io_apic_pins = 24;

kvm_irq_routing_entry pin(unsigned gsi, unsigned chip, unsigned number) {
    kvm_irq_routing_entry e{};
    e.gsi = gsi;
    e.type = KVM_IRQ_ROUTING_IRQCHIP;
    e.u.irqchip.irqchip = chip;
    e.u.irqchip.pin = number;
    return e;
}
} // namespace

Result<void> KvmIrqs::set_line(unsigned gsi, bool level) {
    kvm_irq_level request{};
    request.irq = gsi;
    request.level = level;
    int result = machine_.api().ioctl(machine_.vm_fd(), KVM_IRQ_LINE, &request);
    if (result < 0) return kvm_error("KVM_IRQ_LINE", result);
    return {};
}

Result<void> KvmIrqs::signal_msi(MsiMessage message) {
    kvm_msi request{};
    request.address_lo = std::uint32_t(message.address);
    request.address_hi = std::uint32_t(message.address >> 32);
    request.data = message.data;
    int result = machine_.api().ioctl(machine_.vm_fd(), KVM_SIGNAL_MSI, &request);
    if (result < 0) return kvm_error("KVM_SIGNAL_MSI", result);
    return {};
}

Result<void> KvmIrqs::commit() {
    abi::RoutingTable table{std::span<kvm_irq_routing_entry const>(routes_)};
    int result = machine_.api().ioctl(machine_.vm_fd(), abi::set_gsi_routing, table.head());
    if (result < 0) return kvm_error("KVM_SET_GSI_ROUTING", result);
    return {};
}

Result<void> KvmIrqs::set_pc_routes() {
    routes_.clear();
    for (unsigned gsi = 0; gsi < pic_pins; ++gsi)
        routes_.push_back(pin(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi & 7));
    for (unsigned gsi = 0; gsi < io_apic_pins; ++gsi)
        if (gsi != 2) routes_.push_back(pin(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi));
    return commit();
}

void KvmIrqs::stage_msi(unsigned gsi, MsiMessage message, bool remove) {
    std::erase_if(routes_, [&](auto const& e) { return e.gsi == gsi && e.type == KVM_IRQ_ROUTING_MSI; });
    if (remove) return;
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = std::uint32_t(message.address);
    entry.u.msi.address_hi = std::uint32_t(message.address >> 32);
    entry.u.msi.data = message.data;
    routes_.push_back(entry);
}

Result<void> KvmIrqs::route_msi(unsigned gsi, MsiMessage message) {
    bool known = std::ranges::any_of(routes_, [&](auto const& e) { return e.gsi == gsi; });
    if (!known && routes_.size() >= max_routes) return error("more than {} interrupt routes", max_routes);
    stage_msi(gsi, message, false);
    return commit();
}

Result<void> KvmIrqs::attach_irqfd(int fd, unsigned gsi, int resample_fd) {
    kvm_irqfd request{};
    request.fd = std::uint32_t(fd);
    request.gsi = gsi;
    if (resample_fd >= 0) {
        if (!machine_.caps().irqfd_resample) return error("this host's KVM has no level-triggered irqfd");
        request.flags = KVM_IRQFD_FLAG_RESAMPLE;
        request.resamplefd = std::uint32_t(resample_fd);
    }
    int result = machine_.api().ioctl(machine_.vm_fd(), KVM_IRQFD, &request);
    if (result < 0) return kvm_error("KVM_IRQFD", result);
    return {};
}

Result<void> KvmIrqs::detach_irqfd(int fd, unsigned gsi) {
    kvm_irqfd request{};
    request.fd = std::uint32_t(fd);
    request.gsi = gsi;
    request.flags = KVM_IRQFD_FLAG_DEASSIGN;
    int result = machine_.api().ioctl(machine_.vm_fd(), KVM_IRQFD, &request);
    if (result < 0) return kvm_error("KVM_IRQFD", result);
    return {};
}

Result<void> KvmIrqs::ioeventfd(int fd, IoEvent const& event, bool attach) {
    kvm_ioeventfd request{};
    request.fd = fd;
    request.addr = event.address;
    request.len = event.size;
    request.datamatch = event.data;
    request.flags = (event.port ? KVM_IOEVENTFD_FLAG_PIO : 0) | (event.match_data ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
                    (attach ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN);
    int result = machine_.api().ioctl(machine_.vm_fd(), KVM_IOEVENTFD, &request);
    if (result < 0) return kvm_error("KVM_IOEVENTFD", result);
    return {};
}

} // namespace vmm::kvm
