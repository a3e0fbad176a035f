// Calendar: proleptic Gregorian dates and seconds since 1970, without the host's time zones.
#pragma once
#include <cstdint>

namespace vmm::dev {

struct CivilTime {
    std::int64_t year = 1970;
    unsigned month = 1, day = 1; // from 1
    unsigned hour = 0, minute = 0, second = 0;
    unsigned weekday = 4; // 0 is Sunday
};

// Days from 1970-01-01. Months and days out of range are carried over; any input of reasonable size is fine.
constexpr std::int64_t days_from_civil(std::int64_t year, std::int64_t month, std::int64_t day) {
    // Count months from March, so that the leap day is the last of its year.
    std::int64_t months = year * 12 + (month - 1) - 2;
    std::int64_t y = months >= 0 ? months / 12 : (months - 11) / 12, m = months - y * 12;
    std::int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    std::int64_t day_of_year = (153 * m + 2) / 5;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year + day - 1 - 719468;
}

constexpr std::int64_t seconds_from_civil(CivilTime const& t) {
    return days_from_civil(t.year, t.month, t.day) * 86400 + std::int64_t(t.hour) * 3600 + t.minute * 60 + t.second;
}

constexpr CivilTime civil_from_seconds(std::int64_t seconds) {
    std::int64_t days = (seconds >= 0 ? seconds : seconds - 86399) / 86400;
    auto rest = unsigned(seconds - days * 86400);
    CivilTime t{.hour = rest / 3600, .minute = rest / 60 % 60, .second = rest % 60};
    t.weekday = unsigned(((days + 4) % 7 + 7) % 7);
    std::int64_t shifted = days + 719468; // from 0000-03-01
    std::int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097, of_era = shifted - era * 146097;
    std::int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    std::int64_t day_of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * day_of_year + 2) / 153;
    t.day = unsigned(day_of_year - (153 * m + 2) / 5 + 1);
    t.month = unsigned(m < 10 ? m + 3 : m - 9);
    t.year = year + era * 400 + (t.month <= 2);
    return t;
}

} // namespace vmm::dev
