//! The regular expressions that ignore patterns become: the part of Go's syntax they can reach.
//!
//! That part has no groups but `(.*/)?`, so an expression is a list of branches, a branch a list
//! of items, and matching is a table of one row an item: linear in path times pattern, whatever
//! the pattern. Unicode groups (`\pL`) and `\C` are not read; a pattern with one is not valid.

use std::iter::repeat_n;

use crate::pattern::as_text;
use crate::pattern::class::{Class, complement};

/// Most items of a branch, repetitions written out.
const MAX_ITEMS: usize = 10_000;
/// Highest count of a repetition.
const MAX_REPEAT: usize = 1000;

/// A regular expression; the branches are alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Regex(Vec<Vec<Item>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    One(Class),
    Maybe(Class),
    Many(Class),
    /// `(.*/)?`
    Folders,
    Start,
    End,
    /// `\b`, or `\B` if false.
    Boundary(bool),
}

impl Regex {
    /// Reads an expression; returns nothing if it is not valid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser {
            chars: text.chars().collect(),
            at: 0,
        };
        let mut branches = vec![Vec::new()];
        while let Some(c) = parser.next() {
            let branch = branches.last_mut()?;
            match c {
                '|' => branches.push(Vec::new()),
                '(' => {
                    parser.skip(".*/)?").then_some(())?;
                    branch.push(Item::Folders);
                    parser.no_repeat()?;
                }
                '^' => parser.assertion(branch, Item::Start)?,
                '$' => branch.push(Item::End),
                '\\' if parser.skip("Q") => parser.literals(branch)?,
                '\\' => match parser.assertion_escape() {
                    Some(item) => parser.assertion(branch, item)?,
                    None => {
                        let class = parser.class_escape().or_else(|| parser.escape())?;
                        parser.repeated(branch, &class)?;
                    }
                },
                '[' => {
                    let class = parser.class()?;
                    parser.repeated(branch, &class)?;
                }
                '{' if parser.counts_from(parser.at - 1).is_some() => return None,
                '.' => parser.repeated(branch, &Class::all_but('\n'))?,
                c => parser.repeated(branch, &Class::one(c))?,
            }
            (branches.last()?.len() <= MAX_ITEMS).then_some(())?;
        }
        Some(Self(branches))
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let path: Vec<char> = as_text(path).chars().collect();
        self.0.iter().any(|branch| branch_matches(branch, &path))
    }
}

/// `at[i]` says that the items so far match some text that ends at `i`.
fn branch_matches(branch: &[Item], path: &[char]) -> bool {
    let mut at = vec![true; path.len() + 1];
    let mut next = vec![false; path.len() + 1];
    for item in branch {
        step(item, path, &at, &mut next);
        std::mem::swap(&mut at, &mut next);
    }
    at.contains(&true)
}

fn step(item: &Item, path: &[char], at: &[bool], next: &mut [bool]) {
    let is_word = |i: usize| {
        path.get(i)
            .is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_')
    };
    // True where a match that began before can go on.
    let mut open = false;
    for i in 0..=path.len() {
        let before = i.checked_sub(1).map(|i| path[i]);
        next[i] = match item {
            Item::One(class) => before.is_some_and(|c| at[i - 1] && class.has(c)),
            Item::Maybe(class) => at[i] || before.is_some_and(|c| at[i - 1] && class.has(c)),
            Item::Many(class) => {
                open = at[i] || open && before.is_some_and(|c| class.has(c));
                open
            }
            Item::Folders => {
                open = open && before != Some('\n');
                let here = at[i] || open && before == Some('/');
                open = open || at[i];
                here
            }
            Item::Start => at[i] && i == 0,
            Item::End => at[i] && i == path.len(),
            Item::Boundary(wanted) => {
                let is_boundary = is_word(i) != (i > 0 && is_word(i - 1));
                at[i] && is_boundary == *wanted
            }
        };
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn skip(&mut self, text: &str) -> bool {
        let end = self.at + text.chars().count();
        let found = self.chars.get(self.at..end);
        let is_there = found.is_some_and(|found| found.iter().copied().eq(text.chars()));
        self.at = if is_there { end } else { self.at };
        is_there
    }

    /// Adds a class as often as what follows says.
    fn repeated(&mut self, branch: &mut Vec<Item>, class: &Class) -> Option<()> {
        let (least, most) = match self.skip("*") {
            true => (0, None),
            false => self.counts()?.unwrap_or((1, Some(1))),
        };
        branch.extend(repeat_n(Item::One(class.clone()), least));
        match most {
            Some(most) => branch.extend(repeat_n(Item::Maybe(class.clone()), most - least)),
            None => branch.push(Item::Many(class.clone())),
        }
        self.no_repeat()
    }

    /// Adds what matches a place; repeating that changes nothing, unless it is left out.
    fn assertion(&mut self, branch: &mut Vec<Item>, item: Item) -> Option<()> {
        let (least, _) = self.counts()?.unwrap_or((1, None));
        branch.extend((least > 0).then_some(item));
        self.no_repeat()
    }

    /// A repetition must not be repeated.
    fn no_repeat(&mut self) -> Option<()> {
        self.counts_from(self.at).is_none().then_some(())
    }

    /// Reads `{n}`, `{n,}` or `{n,m}` if it is there; nothing if its numbers are wrong.
    fn counts(&mut self) -> Option<Option<(usize, Option<usize>)>> {
        let Some((least, most, end)) = self.counts_from(self.at) else {
            return Some(None);
        };
        self.at = end;
        let is_fine = least.max(most.unwrap_or(0)) <= MAX_REPEAT && most.is_none_or(|m| least <= m);
        is_fine.then_some(Some((least, most)))
    }

    fn counts_from(&self, at: usize) -> Option<(usize, Option<usize>, usize)> {
        let rest = self.chars.get(at..)?.strip_prefix(&['{'])?;
        let end = rest.iter().position(|c| *c == '}')?;
        let text: String = rest[..end].iter().collect();
        let (least, most) = match text.split_once(',') {
            Some((least, "")) => (count(least)?, None),
            Some((least, most)) => (count(least)?, Some(count(most)?)),
            None => (count(&text)?, Some(count(&text)?)),
        };
        Some((least, most, at + end + 2))
    }

    /// Reads literal characters up to `\E` or the end.
    fn literals(&mut self, branch: &mut Vec<Item>) -> Option<()> {
        while self.at < self.chars.len() && !self.skip("\\E") {
            let c = self.next()?;
            branch.push(Item::One(Class::one(c)));
        }
        if let Some(Item::One(class)) = branch.last().cloned() {
            // What follows repeats the last of them.
            branch.pop();
            self.repeated(branch, &class)?;
        }
        Some(())
    }

    fn assertion_escape(&mut self) -> Option<Item> {
        let item = match self.peek()? {
            'A' => Item::Start,
            'z' => Item::End,
            'b' => Item::Boundary(true),
            'B' => Item::Boundary(false),
            _ => return None,
        };
        self.at += 1;
        Some(item)
    }

    /// Reads the letter of `\d` and its like.
    fn class_escape(&mut self) -> Option<Class> {
        let letter = self.peek()?;
        let ranges = match letter.to_ascii_lowercase() {
            'd' => named("digit"),
            's' => Some(vec!['\t'..='\n', '\u{c}'..='\r', ' '..=' ']),
            'w' => named("word"),
            _ => None,
        }?;
        self.at += 1;
        Some(Class::new(letter.is_ascii_uppercase(), ranges))
    }

    fn escape(&mut self) -> Option<Class> {
        self.escaped().map(Class::one)
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => return self.hexadecimal(),
            '0' => return self.number(0, 8, 2),
            first @ '1'..='7' if self.peek().is_some_and(|c| c.is_digit(8)) => {
                return self.number(first.to_digit(8)?, 8, 2);
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return None,
        })
    }

    fn hexadecimal(&mut self) -> Option<char> {
        if self.skip("{") {
            let c = self.number(0, 16, 6)?;
            return self.skip("}").then_some(c);
        }
        let is_digit = |at: usize| self.chars.get(at).is_some_and(char::is_ascii_hexdigit);
        let has_two = is_digit(self.at) && is_digit(self.at + 1);
        has_two.then(|| self.number(0, 16, 2))?
    }

    /// Reads up to `most` digits behind what is read already.
    fn number(&mut self, mut value: u32, radix: u32, most: usize) -> Option<char> {
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            self.at += 1;
            value = value * radix + digit;
        }
        char::from_u32(value)
    }

    /// Reads a class after its `[`; a `]` right after that does not close it.
    fn class(&mut self) -> Option<Class> {
        let negated = self.skip("^");
        let mut ranges = Vec::new();
        let mut is_first = true;
        while is_first || !self.skip("]") {
            is_first = false;
            if let Some(found) = self.named_class()? {
                ranges.extend(found);
                continue;
            }
            let low = match self.next()? {
                '\\' => match self.class_escape() {
                    Some(class) => {
                        ranges.extend(class.into_ranges());
                        continue;
                    }
                    None => self.escaped()?,
                },
                c => c,
            };
            let is_range = self.peek() == Some('-') && self.chars.get(self.at + 1) != Some(&']');
            let high = if is_range { self.range_end()? } else { low };
            (low <= high).then_some(())?;
            ranges.push(low..=high);
        }
        Some(Class::new(negated, ranges))
    }

    fn range_end(&mut self) -> Option<char> {
        self.at += 1;
        match self.next()? {
            '\\' => self.escaped(),
            c => Some(c),
        }
    }

    /// Reads `[:alpha:]` and its like, if it is one; nothing if there is no such name.
    fn named_class(&mut self) -> Option<Option<Ranges>> {
        let Some(rest) = self.chars[self.at..].strip_prefix(&['[', ':']) else {
            return Some(None);
        };
        let Some(end) = rest.windows(2).position(|two| *two == [':', ']']) else {
            return Some(None);
        };
        let name: String = rest[..end].iter().collect();
        self.at += name.chars().count() + 4;
        match name.strip_prefix('^') {
            Some(name) => Some(Some(complement(&named(name)?))),
            None => Some(Some(named(&name)?)),
        }
    }
}

type Ranges = Vec<std::ops::RangeInclusive<char>>;

/// Returns the set of this name, sorted.
fn named(name: &str) -> Option<Ranges> {
    Some(match name {
        "alnum" => vec!['0'..='9', 'A'..='Z', 'a'..='z'],
        "alpha" => vec!['A'..='Z', 'a'..='z'],
        "ascii" => vec!['\0'..='\x7f'],
        "blank" => vec!['\t'..='\t', ' '..=' '],
        "cntrl" => vec!['\0'..='\x1f', '\x7f'..='\x7f'],
        "digit" => vec!['0'..='9'],
        "graph" => vec!['!'..='~'],
        "lower" => vec!['a'..='z'],
        "print" => vec![' '..='~'],
        "punct" => vec!['!'..='/', ':'..='@', '['..='`', '{'..='~'],
        "space" => vec!['\t'..='\r', ' '..=' '],
        "upper" => vec!['A'..='Z'],
        "word" => vec!['0'..='9', 'A'..='Z', '_'..='_', 'a'..='z'],
        "xdigit" => vec!['0'..='9', 'A'..='F', 'a'..='f'],
        _ => return None,
    })
}

/// Reads a number without leading zeros; one that is too large is larger than any limit.
fn count(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_plain = is_number && (text.len() == 1 || !text.starts_with('0'));
    is_plain.then(|| text.parse().unwrap_or(usize::MAX))
}
