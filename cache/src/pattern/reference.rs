//! The slow, obvious reading of patterns, for tests and fuzz targets to compare with.
//!
//! Written from the rules, not from the code beside it: every pattern becomes the text of a
//! regular expression, which is matched by trying everything. Exponential, so for short texts
//! only. What the reference does not know (`\x`, `\Q`, `[:name:]` and the like) it says so.

/// Longest pattern or path that is worth trying everything for.
const MAX_LENGTH: usize = 24;

/// Most stars that are worth it.
const MAX_STARS: usize = 8;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The pattern is wrong.
    Invalid,
    /// The reference does not know.
    Unknown,
}

type Answer = Result<bool, NoAnswer>;

/// Says whether an ignore file excludes a path, asking every pattern about every parent.
pub(crate) fn is_ignored(file: &str, path: &str) -> Answer {
    let mut patterns = Vec::new();
    for line in file.strip_prefix('\u{feff}').unwrap_or(file).split('\n') {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (negated, text) = match line.trim().strip_prefix('!') {
            Some(text) => (true, text.trim()),
            None => (false, line.trim()),
        };
        let text = cleaned(text);
        let text = match text.strip_prefix('/') {
            Some("") if negated => return Err(NoAnswer::Invalid),
            Some(text) if !text.is_empty() => text,
            _ => &text,
        };
        if text.is_empty() {
            return Err(NoAnswer::Invalid);
        }
        is_match(text, ".")?;
        patterns.push((negated, text.to_owned()));
    }
    let mut held = vec![false; patterns.len()];
    let mut ignored = false;
    for parent in parents(path) {
        ignored = false;
        for ((negated, pattern), held) in patterns.iter().zip(&mut held) {
            if !*held && *negated == ignored {
                *held = matches_pattern(pattern, parent)?;
            }
            if *held {
                ignored = !negated;
            }
        }
    }
    Ok(ignored)
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at);
    ends.chain([path.len()]).map(|end| &path[..end])
}

/// `filepath.Clean`, word by word.
fn cleaned(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut kept: Vec<&str> = Vec::new();
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        let goes_up = part == ".." && kept.last().is_some_and(|last| *last != "..");
        if goes_up {
            kept.pop();
        } else if part != ".." || root.is_empty() {
            kept.push(part);
        }
    }
    match root.to_owned() + &kept.join("/") {
        path if path.is_empty() => ".".to_owned(),
        path => path,
    }
}

fn matches_pattern(pattern: &str, path: &str) -> Answer {
    let is_special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
    if let Some(text) = pattern.strip_suffix("**").filter(|text| !text.is_empty())
        && !is_special(text)
    {
        return Ok(path.starts_with(text));
    }
    if let Some(text) = pattern.strip_prefix("**")
        && !is_special(text)
    {
        return Ok(path.ends_with(text) || Some(path) == text.strip_prefix('/'));
    }
    if !is_special(pattern) {
        return Ok(path == pattern);
    }
    if is_too_much(pattern, path) {
        return Err(NoAnswer::Unknown);
    }
    let regex: Vec<char> = as_regex(pattern).chars().collect();
    let path: Vec<char> = path.chars().collect();
    let mut found = false;
    for branch in branches(&regex)? {
        // All branches are read, so that a mistake in any of them is seen.
        check(branch)?;
        found = found || (0..=path.len()).any(|at| here(branch, &path, at));
    }
    Ok(found)
}

fn is_too_much(pattern: &str, path: &str) -> bool {
    let is_long = pattern.len() > MAX_LENGTH || path.len() > MAX_LENGTH;
    is_long || pattern.matches(['*', '{']).count() > MAX_STARS
}

fn as_regex(pattern: &str) -> String {
    let mut regex = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let (piece, length) = match c {
            '*' if rest == "**" || rest == "**/" => (".*".to_owned(), rest.len()),
            '*' if rest.starts_with("**/") => ("(.*/)?".to_owned(), 3),
            '*' if rest.starts_with("**") => ("(.*/)?".to_owned(), 2),
            '*' => ("[^/]*".to_owned(), 1),
            '?' => ("[^/]".to_owned(), 1),
            '\\' => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                (rest[..length].to_owned(), length)
            }
            '.' | '+' | '(' | ')' | '$' => (format!("\\{c}"), 1),
            c => (c.to_string(), c.len_utf8()),
        };
        regex += &piece;
        rest = &rest[length..];
    }
    regex + "$"
}

/// One thing that a regular expression wants next.
enum Atom {
    Start,
    End,
    Folders,
    Set(Vec<(char, char)>, bool),
}

/// An atom, how often it is wanted, and its length in the expression.
struct Piece {
    atom: Atom,
    least: usize,
    most: usize,
    length: usize,
}

/// Splits at each `|` that is not in a class and not escaped.
fn branches(regex: &[char]) -> Result<Vec<&[char]>, NoAnswer> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while at < regex.len() {
        match regex[at] {
            '\\' => at += 1,
            '[' => match set(&regex[at..]) {
                Ok((_, length)) => at += length - 1,
                Err(NoAnswer::Unknown) => return Err(NoAnswer::Unknown),
                // The branch is not valid, wherever it ends.
                Err(NoAnswer::Invalid) => {}
            },
            '|' => {
                found.push(&regex[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.push(&regex[start..]);
    Ok(found)
}

fn check(mut regex: &[char]) -> Result<(), NoAnswer> {
    let mut is_first = true;
    while !regex.is_empty() {
        let is_counted = count(regex).is_some();
        if is_first && is_counted {
            return Err(NoAnswer::Invalid);
        }
        let piece = piece(regex)?;
        regex = &regex[piece.length..];
        if count(regex).is_some() {
            return Err(NoAnswer::Invalid);
        }
        is_first = false;
    }
    Ok(())
}

/// Tries the expression, which was checked, at this place.
fn here(regex: &[char], path: &[char], at: usize) -> bool {
    let Ok(piece) = piece(regex) else {
        return regex.is_empty();
    };
    let rest = &regex[piece.length..];
    match &piece.atom {
        Atom::Start => (piece.least == 0 || at == 0) && here(rest, path, at),
        Atom::End => at == path.len() && here(rest, path, at),
        Atom::Folders => (at..=path.len()).any(|end| {
            let text = &path[at..end];
            let body = text.strip_suffix(&['/']).unwrap_or_default();
            let is_one = text.is_empty() || text.ends_with(&['/']) && !body.contains(&'\n');
            is_one && here(rest, path, end)
        }),
        Atom::Set(ranges, negated) => (at..=path.len()).any(|end| {
            let text = &path[at..end];
            let is_in = |c: &char| ranges.iter().any(|(low, high)| low <= c && c <= high);
            let is_wanted = (piece.least..=piece.most).contains(&text.len());
            is_wanted && text.iter().all(|c| is_in(c) != *negated) && here(rest, path, end)
        }),
    }
}

fn piece(regex: &[char]) -> Result<Piece, NoAnswer> {
    let (atom, length) = match regex {
        [] => return Err(NoAnswer::Invalid),
        ['^', ..] => (Atom::Start, 1),
        ['$', ..] => (Atom::End, 1),
        ['(', '.', '*', '/', ')', '?', ..] => (Atom::Folders, 6),
        ['.', ..] => (Atom::Set(vec![('\n', '\n')], true), 1),
        ['[', ..] => set(regex)?,
        ['\\', c, ..] => (escape(*c)?, 2),
        ['\\'] => return Err(NoAnswer::Invalid),
        [c, ..] => (Atom::Set(vec![(*c, *c)], false), 1),
    };
    let (least, most, n_count) = match (regex.get(length), count(&regex[length..])) {
        (Some('*'), _) => (0, usize::MAX, 1),
        (_, Some((least, most, n))) if !matches!(atom, Atom::Folders | Atom::End) => {
            let largest = if most == usize::MAX { least } else { most };
            if largest > 1000 || least > most {
                return Err(NoAnswer::Invalid);
            }
            (least, most, n)
        }
        _ => (1, 1, 0),
    };
    Ok(Piece {
        atom,
        least,
        most,
        length: length + n_count,
    })
}

/// Reads `{n}`, `{n,}`, `{n,m}` at the start.
fn count(regex: &[char]) -> Option<(usize, usize, usize)> {
    let text: String = regex.iter().collect();
    let (inside, _) = text.strip_prefix('{')?.split_once('}')?;
    let number = |text: &str| {
        let is_number = text.chars().all(|c| c.is_ascii_digit()) && !text.is_empty();
        let is_short = text == "0" || !text.starts_with('0');
        (is_number && is_short).then(|| text.parse().unwrap_or(usize::MAX - 1))
    };
    let (least, most) = match inside.split_once(',') {
        None => (number(inside)?, number(inside)?),
        Some((least, "")) => (number(least)?, usize::MAX),
        Some((least, most)) => (number(least)?, number(most)?),
    };
    Some((least, most, inside.len() + 2))
}

fn escape(c: char) -> Result<Atom, NoAnswer> {
    Ok(match c {
        'A' => Atom::Start,
        'z' => Atom::End,
        'd' => Atom::Set(vec![('0', '9')], false),
        'D' => Atom::Set(vec![('0', '9')], true),
        _ => {
            let c = escaped(c)?;
            Atom::Set(vec![(c, c)], false)
        }
    })
}

fn escaped(c: char) -> Result<char, NoAnswer> {
    match c {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        'b' | 'B' | 'p' | 'P' | 'Q' | 'w' | 'W' | 's' | 'S' | 'd' | 'D' | 'x' | '0'..='7' => {
            Err(NoAnswer::Unknown)
        }
        c if c.is_ascii_alphanumeric() || !c.is_ascii() => Err(NoAnswer::Invalid),
        c => Ok(c),
    }
}

/// Reads a class at the start.
fn set(regex: &[char]) -> Result<(Atom, usize), NoAnswer> {
    let negated = regex.get(1) == Some(&'^');
    let first = if negated { 2 } else { 1 };
    let (mut ranges, mut at) = (Vec::new(), first);
    loop {
        match regex.get(at) {
            None => return Err(NoAnswer::Invalid),
            Some(']') if at > first => return Ok((Atom::Set(ranges, negated), at + 1)),
            Some('[') if regex.get(at + 1) == Some(&':') => return Err(NoAnswer::Unknown),
            Some(_) => {
                let (low, length) = set_char(&regex[at..])?;
                at += length;
                let mut high = low;
                if regex.get(at) == Some(&'-') && !matches!(regex.get(at + 1), None | Some(']')) {
                    let (last, length) = set_char(&regex[at + 1..])?;
                    high = last;
                    at += length + 1;
                }
                if high < low {
                    return Err(NoAnswer::Invalid);
                }
                ranges.push((low, high));
            }
        }
    }
}

fn set_char(regex: &[char]) -> Result<(char, usize), NoAnswer> {
    match regex {
        ['\\', c, ..] => Ok((escaped(*c)?, 2)),
        ['\\'] | [] => Err(NoAnswer::Invalid),
        [c, ..] => Ok((*c, 1)),
    }
}

/// Says whether a wildcard matches a path: `filepath.Match`, by trying everything.
pub(crate) fn is_match(pattern: &str, path: &str) -> Answer {
    let too_long = is_too_much(pattern, path);
    let pattern: Vec<char> = pattern.chars().collect();
    valid(&pattern)?;
    if too_long {
        return Err(NoAnswer::Unknown);
    }
    let path: Vec<char> = path.chars().collect();
    Ok(wild(&pattern, &path))
}

fn valid(mut pattern: &[char]) -> Result<(), NoAnswer> {
    loop {
        pattern = match pattern {
            [] => return Ok(()),
            ['\\'] => return Err(NoAnswer::Invalid),
            ['\\', _, rest @ ..] => rest,
            ['[', ..] => wild_set(pattern).ok_or(NoAnswer::Invalid)?.1,
            [_, rest @ ..] => rest,
        };
    }
}

fn wild(pattern: &[char], path: &[char]) -> bool {
    match (pattern, path) {
        ([], _) => path.is_empty(),
        (['*', rest @ ..], _) => {
            let reach = path.iter().take_while(|c| **c != '/').count();
            (0..=reach).any(|n| wild(rest, &path[n..]))
        }
        (_, []) => false,
        (['?', rest @ ..], [c, path @ ..]) => *c != '/' && wild(rest, path),
        (['[', ..], [c, path @ ..]) => {
            wild_set(pattern).is_some_and(|((ranges, negated), rest)| {
                let is_in = ranges.iter().any(|(low, high)| low <= c && c <= high);
                is_in != negated && wild(rest, path)
            })
        }
        (['\\', wanted, rest @ ..] | [wanted, rest @ ..], [c, path @ ..]) => {
            wanted == c && wild(rest, path)
        }
    }
}

type WildSet = (Vec<(char, char)>, bool);

fn wild_set(pattern: &[char]) -> Option<(WildSet, &[char])> {
    let mut rest = pattern.strip_prefix(&['['])?;
    let negated = rest.first() == Some(&'^');
    rest = &rest[usize::from(negated)..];
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.first() != Some(&']') {
        let (low, after) = wild_char(rest)?;
        let (high, after) = match after {
            ['-', after @ ..] => wild_char(after)?,
            _ => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
    Some(((ranges, negated), &rest[1..]))
}

fn wild_char(pattern: &[char]) -> Option<(char, &[char])> {
    match pattern {
        ['-' | ']', ..] | [] | ['\\'] => None,
        ['\\', c, rest @ ..] | [c, rest @ ..] => Some((*c, rest)),
    }
}
