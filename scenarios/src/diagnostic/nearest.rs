//! The known word that a reader most likely meant.

/// The word of `known` nearest to `given`, when it is near enough to be a slip of the hand.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let near = |word: &'a str| {
        let apart = distance(&given, &word.to_lowercase());
        let limit = given.chars().count().max(word.chars().count()).div_ceil(3);
        (apart <= limit).then_some((apart, word))
    };
    known.into_iter().filter_map(near).min_by_key(|&(apart, _)| apart).map(|(_, word)| word)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    // names are short; a long word is no slip of one
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        assert_eq!(nearest("falsh", ["naive", "flash"]), Some("flash"));
        assert_eq!(nearest("Flash", ["naive", "flash"]), Some("flash"));
        assert_eq!(nearest("quikstart", ["smoke", "quickstart"]), Some("quickstart"));
        assert_eq!(nearest("mamba", ["naive", "flash"]), None);
        assert_eq!(nearest("", ["naive"]), None);
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
