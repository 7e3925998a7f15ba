//! A moment written by `strftime`, in UTC and English.

/// A moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    year: i64,
    month: usize,
    day: usize,
    hour: usize,
    minute: usize,
    second: usize,
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Moment {
    /// Of `2026-11-30T17:04:05Z`; what is not written so is the first moment of 1970.
    pub(super) fn parse(text: &str) -> Moment {
        let numbers: Vec<usize> =
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        let at = |i: usize, least: usize| numbers.get(i).copied().unwrap_or(least);
        let (month, day) = (at(1, 1).clamp(1, 12), at(2, 1).clamp(1, 31));
        Moment { year: at(0, 1970) as i64, month, day, hour: at(3, 0), minute: at(4, 0), second: at(5, 0) }
    }

    /// Days before this one in its year.
    fn day_of_year(&self) -> usize {
        let leap = (self.year % 4 == 0 && self.year % 100 != 0) || self.year % 400 == 0;
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][self.month - 1];
        before + usize::from(leap && self.month > 2) + self.day - 1
    }

    /// 0 is Sunday (Sakamoto's method).
    fn weekday(&self) -> usize {
        let shift = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4][self.month - 1];
        let year = self.year - i64::from(self.month < 3);
        ((year + year / 4 - year / 100 + year / 400 + shift + self.day as i64) % 7) as usize
    }

    /// The moment by `format`; unknown directives stay as they are.
    pub(super) fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let unpadded = directive == Some('-');
            if unpadded {
                directive = chars.next();
            }
            let number = |value: usize, width: usize| match unpadded {
                true => value.to_string(),
                false => format!("{value:0width$}"),
            };
            let twelve = (self.hour + 11) % 12 + 1;
            out += &match directive {
                Some('Y') => self.year.to_string(),
                Some('y') => number(self.year as usize % 100, 2),
                Some('m') => number(self.month, 2),
                Some('d') => number(self.day, 2),
                Some('e') => format!("{:2}", self.day),
                Some('j') => number(self.day_of_year() + 1, 3),
                Some('H') => number(self.hour, 2),
                Some('I') => number(twelve, 2),
                Some('M') => number(self.minute, 2),
                Some('S') => number(self.second, 2),
                Some('p') => if self.hour < 12 { "AM" } else { "PM" }.into(),
                Some('B') => MONTHS[self.month - 1].into(),
                Some('b' | 'h') => MONTHS[self.month - 1][..3].into(),
                Some('A') => DAYS[self.weekday()].into(),
                Some('a') => DAYS[self.weekday()][..3].into(),
                Some('w') => self.weekday().to_string(),
                Some('F') => self.format("%Y-%m-%d"),
                Some('T') => self.format("%H:%M:%S"),
                Some('D') => self.format("%m/%d/%y"),
                Some('R') => self.format("%H:%M"),
                Some('Z' | 'z') => String::new(),
                Some('%') => "%".into(),
                Some(other) => format!("%{other}"),
                None => "%".into(),
            };
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn moments_are_written_as_strftime_writes_them() {
        // by Python's datetime
        let of = |text: &str, format: &str| Moment::parse(text).format(format);
        assert_eq!(
            of("2026-11-30T17:04:05Z", "%A %a %B %b %d %j %I %p %y %%"),
            "Monday Mon November Nov 30 334 05 PM 26 %"
        );
        assert_eq!(of("2024-02-29T00:00:00Z", "%Y-%m-%d %H:%M:%S %a %-d %-m %j"), "2024-02-29 00:00:00 Thu 29 2 060");
        assert_eq!(of("2024-03-01T12:00:00Z", "%A, %I %p, %j, %q"), "Friday, 12 PM, 061, %q");
    }
}
