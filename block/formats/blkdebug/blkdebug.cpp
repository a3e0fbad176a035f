#include "block/formats/blkdebug/blkdebug.h"

#include "block/core/capabilities.h"
#include "block/core/debug_events.h"
#include "block/core/sync.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

namespace vmm::block {

namespace {

enum class IoType : std::uint8_t { any, read, write, flush, discard, write_zeroes };

struct Rule {
    bool inject = true; // else: set-state
    BlkdebugEvent event = BlkdebugEvent::none;
    std::uint64_t state = 0; // 0: any
    std::uint64_t new_state = 0;
    int error_code = EIO;
    bool once = false;
    std::int64_t sector = -1; // -1: anywhere
    IoType type = IoType::any;
    bool armed = false, spent = false;
};

constexpr std::size_t max_rules = 1000;
constexpr std::uint64_t sector_bytes = 512;

Result<IoType> parse_type(std::string const& text) {
    constexpr std::string_view names[] = {"any", "read", "write", "flush", "discard", "write-zeroes"};
    for (std::size_t i = 1; i < std::size(names); ++i)
        if (text == names[i]) return IoType(i);
    return error("Invalid blkdebug iotype '{}'", text);
}

Result<Rule> make_rule(std::string const& section, OptionValues const& values) {
    Rule rule;
    rule.inject = section == "inject-error";
    if (!rule.inject && section != "set-state") return error("There is no option group '{}'", section);
    std::string name = values.text_or("event", "none");
    auto event = parse_blkdebug_event(name);
    if (!event) return error("Invalid event name \"{}\"", name);
    rule.event = *event;
    rule.state = TRY(values.number("state", 0));
    rule.new_state = TRY(values.number("new_state", 0));
    rule.error_code = int(TRY(values.number("errno", EIO)));
    rule.once = TRY(values.boolean("once", false));
    if (values.text_or("sector", "-1") != "-1") rule.sector = std::int64_t(TRY(values.number("sector", 0)));
    if (auto type = values.text("iotype")) rule.type = TRY(parse_type(*type));
    rule.armed = rule.inject && rule.event == BlkdebugEvent::none;
    return rule;
}

// Rules given as options: PREFIX.N.event and so on, in order of N.
Result<void> add_rules(std::string const& kind, OptionValues const& given, std::vector<Rule>& rules) {
    OptionValues of_kind = given.sub(kind);
    for (std::size_t i = 0;; ++i) {
        OptionValues one = of_kind.sub(std::to_string(i));
        if (one.empty()) return {};
        if (rules.size() >= max_rules) return error("There are more than {} rules", max_rules);
        rules.push_back(TRY(make_rule(kind, one)));
    }
}

// What the device is to say of itself in place of what the file says; 0: the same as the file.
struct LimitsGiven {
    std::uint64_t align = 0, max_transfer = 0, max_zeroes = 0, opt_zeroes = 0, opt_discard = 0;
};

Result<LimitsGiven> limits_given(OptionValues const& given) {
    LimitsGiven limits;
    limits.align = TRY(given.size("align", 0));
    if (limits.align && (!std::has_single_bit(limits.align) || limits.align > (1u << 30)))
        return error("Cannot meet constraints with align {}", limits.align);
    std::uint64_t const unit = std::max<std::uint64_t>(limits.align, 1);
    auto multiple = [&](char const* name, std::uint64_t& value) -> Result<void> {
        value = TRY(given.size(name, 0));
        if (value % unit || value > INT32_MAX) return error("Cannot meet constraints with {} {}", name, value);
        return {};
    };
    std::uint64_t max_discard = 0;
    TRY(multiple("max-transfer", limits.max_transfer));
    TRY(multiple("opt-write-zero", limits.opt_zeroes));
    TRY(multiple("max-write-zero", limits.max_zeroes));
    TRY(multiple("opt-discard", limits.opt_discard));
    TRY(multiple("max-discard", max_discard));
    if (max_discard && (!limits.max_zeroes || max_discard < limits.max_zeroes)) limits.max_zeroes = max_discard;
    for (std::uint64_t* optimum : {&limits.opt_zeroes, &limits.opt_discard})
        if (*optimum && !std::has_single_bit(*optimum)) *optimum = 0; // a hint
    return limits;
}

constexpr OptionSpec open_options[] = {
    {"config", OptionType::string, "file with rules"},
    {"image", OptionType::string, ""},
    {"image.", OptionType::string, "what lies under it"},
    {"x-image", OptionType::string, ""},
    {"inject-error.", OptionType::string, "N.event, N.state, N.iotype, N.errno, N.sector, N.once, N.immediately"},
    {"set-state.", OptionType::string, "N.event, N.state, N.new_state"},
    {"align", OptionType::size, "requests are multiples of it"},
    {"max-transfer", OptionType::size, "longest request"},
    {"opt-write-zero", OptionType::size, ""},
    {"max-write-zero", OptionType::size, ""},
    {"opt-discard", OptionType::size, ""},
    {"max-discard", OptionType::size, ""},
};

std::string trim(std::string_view text, std::string_view blanks = " \t\r\"") {
    std::size_t first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return std::string(text.substr(first, text.find_last_not_of(blanks) - first + 1));
}

Result<std::vector<Rule>> parse_config(std::string const& path) {
    std::vector<Rule> rules;
    if (path.empty()) return rules;
    std::ifstream file(path);
    if (!file) return error_from_errno(errno, "Could not read blkdebug config file '{}'", path);
    std::string section;
    OptionValues values;
    auto finish = [&]() -> Result<void> {
        if (section.empty()) return {};
        if (rules.size() >= max_rules) return error("'{}' holds more than {} rules", path, max_rules);
        rules.push_back(TRY(make_rule(section, values)));
        values = {};
        return {};
    };
    int number = 0;
    for (std::string line; std::getline(file, line);) {
        ++number;
        std::string text = trim(line, " \t\r");
        if (text.empty() || text[0] == '#') continue;
        std::size_t equals = text.find('=');
        if (text[0] == '[') {
            TRY(finish());
            section = trim(text, "[] \t\"");
        } else if (equals == std::string::npos || section.empty()) {
            return error("{}:{}: parse error", path, number);
        } else {
            values.set(trim(text.substr(0, equals)), trim(text.substr(equals + 1)));
        }
    }
    TRY(finish());
    return rules;
}

class Blkdebug final : public BlockDevice,
                       public SparseCapable,
                       public AllocationMap,
                       public Resizable,
                       public DebugEvents {
public:
    Blkdebug(std::unique_ptr<BlockDevice> file, std::vector<Rule> rules, LimitsGiven limits)
        : file_(std::move(file)), rules_(std::move(rules)), limits_(limits) {}

    std::uint64_t size_bytes() const override { return file_->size_bytes(); }
    bool read_only() const override { return file_->read_only(); }
    Limits limits() const override;
    Capabilities capabilities() override {
        Capabilities under = file_->capabilities();
        return Capabilities{.sparse = under.sparse ? this : nullptr,
                            .allocation = under.allocation ? this : nullptr,
                            .resizable = under.resizable ? this : nullptr,
                            .debug = this};
    }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        CO_TRY(injected(IoType::read, offset, to.size_bytes()));
        Result<void> result = co_await file_->read(offset, to);
        co_return result;
    }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override {
        co_await event(BlkdebugEvent::pwritev); // each request to this device is a point of its own
        CO_TRY(injected(IoType::write, offset, from.size_bytes()));
        unflushed_ = true;
        Result<void> result = co_await file_->write(offset, from, durability);
        co_await event(BlkdebugEvent::pwritev_done);
        co_return result;
    }
    Task<Result<void>> flush() override {
        co_await event(BlkdebugEvent::flush_to_os);
        if (unflushed_) { // as QEMU, which asks nothing of a device that has nothing to flush
            co_await event(BlkdebugEvent::flush_to_disk);
            CO_TRY(injected(IoType::flush, 0, 0));
            unflushed_ = false;
        }
        Result<void> result = co_await file_->flush();
        co_return result;
    }
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override {
        co_await event(BlkdebugEvent::pwritev_zero);
        CO_TRY(injected(IoType::write_zeroes, offset, length));
        unflushed_ = true;
        Result<void> result = co_await file_->capabilities().sparse->write_zeroes(offset, length, flags);
        co_await event(BlkdebugEvent::pwritev_done);
        co_return result;
    }
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override {
        CO_TRY(injected(IoType::discard, offset, length));
        Result<void> result = co_await file_->capabilities().sparse->discard(offset, length);
        co_return result;
    }
    Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) override {
        return file_->capabilities().allocation->status(offset, length);
    }
    Task<Result<void>> resize(ResizeRequest request) override {
        return file_->capabilities().resizable->resize(request);
    }

    Task<void> event(BlkdebugEvent event) override;
    Result<void> set_breakpoint(BlkdebugEvent event, std::string tag) override {
        breakpoints_.push_back({event, std::move(tag)});
        return {};
    }
    Result<void> remove_breakpoint(std::string const& tag) override;
    Result<void> resume(std::string const& tag) override;
    bool is_suspended(std::string const& tag) const override {
        return std::ranges::any_of(suspended_, [&](auto const& s) { return s->tag == tag; });
    }

private:
    struct Breakpoint {
        BlkdebugEvent event;
        std::string tag;
    };
    struct Suspended {
        std::string tag;
        bool resumed = false;
        AsyncCondition changed;
    };
    Result<void> injected(IoType type, std::uint64_t offset, std::uint64_t length);

    std::unique_ptr<BlockDevice> file_;
    std::vector<Rule> rules_;
    LimitsGiven limits_;
    std::uint64_t state_ = 1;
    bool unflushed_ = false; // written since the last flush
    std::vector<Breakpoint> breakpoints_;
    std::vector<std::shared_ptr<Suspended>> suspended_;
};

Limits Blkdebug::limits() const {
    Limits limits = file_->limits();
    if (limits_.align) limits.request_alignment = std::max(limits.request_alignment, std::uint32_t(limits_.align));
    if (limits_.max_transfer) limits.max_transfer = std::min(limits.max_transfer, limits_.max_transfer);
    if (limits_.max_zeroes) limits.max_zeroes = std::min(limits.max_zeroes, limits_.max_zeroes);
    if (limits_.opt_zeroes) limits.zeroes_alignment = std::uint32_t(limits_.opt_zeroes);
    if (limits_.opt_discard) limits.discard_alignment = std::uint32_t(limits_.opt_discard);
    return limits;
}

Task<void> Blkdebug::event(BlkdebugEvent event) {
    std::uint64_t next_state = state_;
    bool matched = false;
    for (Rule& rule : rules_) {
        if (rule.event != event || (rule.state != 0 && rule.state != state_)) continue;
        if (!rule.inject) {
            next_state = rule.new_state;
            continue;
        }
        if (!matched) // an event that arms rules replaces those armed by an earlier one
            for (Rule& other : rules_)
                if (other.event != BlkdebugEvent::none) other.armed = false;
        matched = true;
        rule.armed = !rule.spent;
    }
    state_ = next_state;
    auto stop = std::ranges::find(breakpoints_, event, &Breakpoint::event);
    if (stop == breakpoints_.end()) co_return;
    auto suspended = std::make_shared<Suspended>();
    suspended->tag = stop->tag;
    breakpoints_.erase(stop);
    suspended_.push_back(suspended);
    // Part of the output of a test, as QEMU prints it.
    std::printf("blkdebug: Suspended request '%s'\n", suspended->tag.c_str());
    while (!suspended->resumed) co_await suspended->changed.wait();
}

Result<void> Blkdebug::injected(IoType type, std::uint64_t offset, std::uint64_t length) {
    for (Rule& rule : rules_) {
        if (!rule.armed || (rule.type != IoType::any && rule.type != type)) continue;
        if (rule.sector >= 0) {
            std::uint64_t at = std::uint64_t(rule.sector) * sector_bytes;
            if (at < offset || at - offset >= length) continue;
        }
        if (rule.once) {
            rule.armed = false;
            rule.spent = true;
        }
        if (rule.error_code == 0) return {};
        return Error(std::strerror(rule.error_code), rule.error_code);
    }
    return {};
}

Result<void> Blkdebug::resume(std::string const& tag) {
    auto found = std::ranges::find_if(suspended_, [&](auto const& s) { return s->tag == tag; });
    if (found == suspended_.end()) return Error(fmt::format("No request is suspended under '{}'", tag), ENOENT);
    std::shared_ptr<Suspended> one = *found;
    suspended_.erase(found);
    std::printf("blkdebug: Resuming request '%s'\n", tag.c_str());
    one->resumed = true;
    one->changed.notify_all();
    return {};
}

Result<void> Blkdebug::remove_breakpoint(std::string const& tag) {
    bool removed = std::erase_if(breakpoints_, [&](Breakpoint const& b) { return b.tag == tag; }) > 0;
    while (is_suspended(tag)) {
        TRY(resume(tag));
        removed = true;
    }
    if (!removed) return Error(fmt::format("There is no breakpoint '{}'", tag), ENOENT);
    return {};
}

Task<Result<std::unique_ptr<BlockDevice>>> open(BlockContext& context, OpenOptions options) {
    std::string config = options.tree.text_or("config", "");
    OpenOptions under = options;
    under.format.clear();
    under.tree = options.tree.sub("image");
    std::string_view rest = options.filename;
    if (rest.starts_with("blkdebug:")) {
        rest.remove_prefix(9);
        std::size_t colon = rest.find(':');
        if (colon == std::string_view::npos) co_return error("blkdebug requires a filename: blkdebug:CONFIG:FILE");
        config = std::string(rest.substr(0, colon));
        under.filename = std::string(rest.substr(colon + 1));
    } else {
        under.filename = under.tree.text_or("filename", "");
    }
    CO_TRY_ASSIGN(std::vector<Rule> rules, parse_config(config));
    for (char const* kind : {"inject-error", "set-state"}) CO_TRY(add_rules(kind, options.tree, rules));
    CO_TRY_ASSIGN(LimitsGiven limits, limits_given(options.tree));
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file, co_await open_protocol(context, std::move(under)));
    co_return std::make_unique<Blkdebug>(std::move(file), std::move(rules), limits);
}

} // namespace

Protocol blkdebug_protocol() {
    return {.name = "blkdebug",
            .matches = [](std::string_view name) { return name.starts_with("blkdebug:"); },
            .open = open,
            .open_options = open_options};
}

} // namespace vmm::block
