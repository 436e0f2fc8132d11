//! `did you mean`: the nearest of a few known words.

use crate::instruction::Dockerfile;
use crate::options::ImageRequest;

/// Returns the word of `known` that `word` is most likely a slip of, if there is a close one.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Platforms that images are made for, in the forms that people write.
const PLATFORMS: [&str; 20] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/loong64",
    "linux/mips64le",
    "windows/amd64",
    "amd64",
    "arm64",
    "arm",
    "386",
    "ppc64le",
    "s390x",
    "riscv64",
    "linux",
    "local",
];

/// Returns the platform that `text` is most likely a slip of; `None` if it is a usual one.
pub fn nearest_platform(text: &str) -> Option<&'static str> {
    nearest(text, PLATFORMS).filter(|known| !known.eq_ignore_ascii_case(text))
}

/// Returns what to do about an image that could not be found: its name or its platform may be a
/// slip.
pub fn help_for_request(file: &Dockerfile, request: &ImageRequest) -> Option<String> {
    let name = &request.reference;
    if name.ends_with([':', '@']) {
        let help = "a variable in it is empty: declare it with `ARG` before the first `FROM`";
        return Some(help.to_owned());
    }
    let stages = file.stages.iter().filter_map(|stage| stage.name.as_deref());
    if let Some(stage) = nearest(name, stages).filter(|stage| stage != name) {
        return Some(format!("did you mean stage `{stage}`?"));
    }
    let platform = nearest_platform(&request.platform.to_string())?;
    Some(format!("did you mean platform `{platform}`?"))
}

/// Returns how many characters must be added, left out, replaced or swapped with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["RUN", "USER", "COPY", "ENTRYPOINT"];
        for (word, expected) in [
            ("RUUN", Some("RUN")),
            ("rnu", Some("RUN")),
            ("CPOY", Some("COPY")),
            ("ENTRYPONT", Some("ENTRYPOINT")),
            ("/3.4/x", None),
            ("INCLUDE", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
