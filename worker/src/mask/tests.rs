//! The masker against a slow and obvious one.

use super::*;

/// Masks output that comes in these pieces.
fn masked(secrets: &[&str], pieces: &[&[u8]]) -> String {
    let masks = Masks::new(secrets.iter().map(|secret| secret.as_bytes())).unwrap();
    let mut masker = masks.masker();
    let mut shown = Vec::new();
    for piece in pieces {
        shown.extend(masker.push(piece));
    }
    shown.extend(masker.finish());
    String::from_utf8(shown).unwrap()
}

/// Marks every occurrence of every line, and shows runs of marks as one.
fn slowly_masked(secrets: &[&str], text: &[u8]) -> String {
    let mut marks = vec![false; text.len()];
    for line in secrets.iter().flat_map(|secret| secret.split('\n')) {
        let line = line.trim_ascii().as_bytes();
        if line.len() < MIN_LENGTH {
            continue;
        }
        for start in 0..text.len().saturating_sub(line.len() - 1) {
            if text[start..].starts_with(line) {
                marks[start..start + line.len()].fill(true);
            }
        }
    }
    let mut shown = String::new();
    for (index, &byte) in text.iter().enumerate() {
        if !marks[index] {
            shown.push(byte.into());
        } else if index == 0 || !marks[index - 1] {
            shown.push_str("***");
        }
    }
    shown
}

#[test]
fn a_secret_is_shown_as_stars() {
    let all = |text: &str| masked(&["hunter2"], &[text.as_bytes()]);
    assert_eq!(all("it is hunter2.\n"), "it is ***.\n");
    assert_eq!(all("hunter2"), "***");
    assert_eq!(all("hunter"), "hunter");
    assert_eq!(all("hunthunter2"), "hunt***");
    assert_eq!(all("hunter2hunter2 hunter2"), "*** ***");
}

#[test]
fn a_secret_in_pieces_is_found() {
    let text = b"one hunter2 two hunthunter2!";
    for size in 1..text.len() {
        let pieces: Vec<&[u8]> = text.chunks(size).collect();
        assert_eq!(
            masked(&["hunter2"], &pieces),
            "one *** two hunt***!",
            "{size}"
        );
    }
}

#[test]
fn every_line_of_a_secret_is_looked_for() {
    let secret = "{\n  \"user\": \"me\",\r\n  \"key\": \"abcdef\"\n}\n";
    let shown = masked(
        &[secret],
        &[b"{ } \"key\": \"abcdef\" and \"user\": \"me\",\n"],
    );
    assert_eq!(shown, "{ } *** and ***\n");
}

#[test]
fn the_longest_and_overlapping_ones_are_hidden_whole() {
    assert_eq!(masked(&["abcd", "abcdefgh"], &[b"xabcdefghy"]), "x***y");
    assert_eq!(
        masked(&["abcd", "abcdefgh"], &[b"xabcd", b"efgy"]),
        "x***efgy"
    );
    assert_eq!(masked(&["abcdef", "defghi"], &[b"xabcdefghiy"]), "x***y");
    assert_eq!(
        masked(&["wabcdz", "abcd", "bcdefgh"], &[b"wabcdefgh"]),
        "w***"
    );
    assert_eq!(masked(&["aaaa"], &[b"aaa", b"aaa", b" aaa"]), "*** aaa");
}

#[test]
fn what_is_short_is_not_looked_for() {
    assert!(Masks::new([&b""[..], b"abc", b"a\nb\n\n  abc  "]).is_none());
    assert!(Masks::new([]).is_none());
}

#[test]
fn nothing_is_held_back_without_need() {
    let masks = Masks::new([&b"hunter2"[..]]).unwrap();
    let mut masker = masks.masker();
    assert_eq!(masker.push(b"progress: 10%\n"), b"progress: 10%\n");
    assert_eq!(masker.push(b"wait, hunt"), b"wait, ");
    assert_eq!(masker.push(b"ing"), b"hunting");
    assert_eq!(masker.push(b"hunter"), b"");
    assert_eq!(masker.finish(), b"hunter");
    assert_eq!(masker.push(b"2 hunter2"), b"2 ***");
}

#[test]
fn memory_is_bounded_by_the_longest_line() {
    let secret = "ab".repeat(1000);
    let masks = Masks::new([secret.as_bytes()]).unwrap();
    let mut masker = masks.masker();
    for _ in 0..1000 {
        masker.push(&[b'a'; 100]);
        masker.push(b"ababababab");
        assert!(masker.held.len() <= secret.len() && masker.secret.len() <= 1);
    }
    for _ in 0..100 {
        // One secret without an end.
        masker.push(secret.as_bytes());
    }
    assert!(
        masker.held.len() <= 2 * secret.len(),
        "{}",
        masker.held.len()
    );
}

#[test]
fn agrees_with_the_slow_masker() {
    let mut state = 0x9e37_79b9_u32;
    let mut next = |bound: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % bound
    };
    for _ in 0..2000 {
        let mut word = |longest| -> String {
            let length = next(longest);
            (0..length)
                .map(|_| if next(3) > 0 { 'a' } else { 'b' })
                .collect()
        };
        let secrets = [word(8), word(9), format!("{}\n{}", word(6), word(12))];
        let text = word(60);
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        if Masks::new(secrets.iter().map(|s| s.as_bytes())).is_none() {
            continue;
        }
        let size = 1 + next(7) as usize;
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let expected = slowly_masked(&secrets, text.as_bytes());
        assert_eq!(masked(&secrets, &pieces), expected, "{secrets:?} in {text}");
    }
}
