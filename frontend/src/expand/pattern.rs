//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?`, and escapes by a backslash.
//!
//! Neither wildcard matches a line break. Matching keeps the set of places reached so far, so it
//! never takes more than pattern length times text length.

use crate::expand::ExpandError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Any,
    Star,
    Literal(char),
}

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, ExpandError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                // In `${…}` these need an escape that is not part of the pattern.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::Literal(c),
                    other => return Err(invalid_escape(text, other)),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    /// Leaves out the shortest or longest match at the start.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let end = trimmed(&self.0, &chars, longest);
        chars[end..].iter().collect()
    }

    /// Leaves out the shortest or longest match at the end.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> String {
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let chars: Vec<char> = value.chars().rev().collect();
        let end = trimmed(&tokens, &chars, longest);
        chars[end..].iter().rev().collect()
    }

    /// Replaces the first match or all of them; a match is as long as it can be.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let starts = starts(&self.0, &chars);
        let mut out = String::new();
        let (mut at, mut last_end) = (0, None);
        while at <= chars.len() {
            // Where no match starts, none is looked for: that would take the square of the time.
            let end = match starts[at] {
                true => ends(&self.0, &chars[at..]).last().map(|length| at + length),
                false => None,
            };
            // An empty match right behind a match does not count.
            let end = end.filter(|&end| end > at || last_end != Some(at));
            if let Some(end) = end {
                out.push_str(replacement);
                last_end = Some(end);
                if !all {
                    out.extend(&chars[end..]);
                    return out;
                }
            }
            let next = end.filter(|&end| end > at).unwrap_or(at + 1);
            if end.is_none_or(|end| end == at) {
                out.extend(chars.get(at));
            }
            at = next;
        }
        out
    }
}

fn invalid_escape(pattern: &str, escaped: Option<char>) -> ExpandError {
    ExpandError::InvalidPattern {
        pattern: pattern.to_owned(),
        escaped: escaped.map(String::from).unwrap_or_default(),
    }
}

fn trimmed(tokens: &[Token], chars: &[char], longest: bool) -> usize {
    let ends = ends(tokens, chars);
    let end = if longest { ends.last() } else { ends.first() };
    end.copied().unwrap_or(0)
}

/// Returns for each place, the end included, whether a match starts there.
fn starts(tokens: &[Token], chars: &[char]) -> Vec<bool> {
    let mut starts = vec![true; chars.len() + 1];
    for token in tokens.iter().rev() {
        let fits = |c: char| match token {
            Token::Star | Token::Any => c != '\n',
            Token::Literal(literal) => c == *literal,
        };
        if *token == Token::Star {
            for at in (0..chars.len()).rev() {
                starts[at] = starts[at] || (fits(chars[at]) && starts[at + 1]);
            }
            continue;
        }
        for at in 0..chars.len() {
            starts[at] = fits(chars[at]) && starts[at + 1];
        }
        starts[chars.len()] = false;
    }
    starts
}

/// Returns where matches that start with `chars` can end, in order.
fn ends(tokens: &[Token], chars: &[char]) -> Vec<usize> {
    let mut reached = vec![0];
    for token in tokens {
        reached = match token {
            Token::Star => starred(&reached, chars),
            Token::Any => stepped(&reached, chars, |c| c != '\n'),
            Token::Literal(literal) => stepped(&reached, chars, |c| c == *literal),
        };
        if reached.is_empty() {
            break;
        }
    }
    reached
}

fn stepped(reached: &[usize], chars: &[char], matches: impl Fn(char) -> bool) -> Vec<usize> {
    let fits = |&at: &usize| chars.get(at).is_some_and(|&c| matches(c));
    reached
        .iter()
        .copied()
        .filter(fits)
        .map(|at| at + 1)
        .collect()
}

fn starred(reached: &[usize], chars: &[char]) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    for &start in reached {
        // Where the run before this one has been, there is nothing to add.
        if out.last().is_some_and(|&last| last >= start) {
            continue;
        }
        out.push(start);
        let run = chars[start..].iter().take_while(|&&c| c != '\n').count();
        out.extend(start + 1..=start + run);
    }
    out
}
