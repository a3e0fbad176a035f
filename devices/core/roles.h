// The roles a device may have beside handling I/O (vmm/memory/io_handler.h).
#pragma once
#include "vmm/base/fields.h"

namespace vmm::dev {

// Power-on or bus reset: brings the architectural state to the datasheet's reset values; doing it twice is the same as
// once. Device lock held, vCPUs not running device code.
class Resettable {
public:
    virtual ~Resettable() = default;
    virtual void reset() = 0;
};

// A component whose architectural state can be saved and loaded. The state lives in one plain aggregate whose fields
// are named once in `template <class V> void fields(V&, State&)` (vmm/base/fields.h). Device lock held.
class Snapshottable {
public:
    virtual ~Snapshottable() = default;
    // Writes the state. Const: saving changes nothing.
    virtual void save(StateWriter& to) const = 0;
    // Reads and validates a state, then takes it over and re-derives caches, pending interrupts and timers. On error
    // the component is unchanged.
    virtual Result<void> load(StateReader& from) = 0;
};

} // namespace vmm::dev
