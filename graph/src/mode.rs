//! Permission bits to give: a number, or a change in words as `chmod` takes it.
//!
//! Words follow BSD's `setmode`, because BuildKit's do: no umask, `X` also after `=`, `s` and `t`
//! without effect for `o` alone. Where GNU's `chmod` refuses a mix such as `g=ur`, parts are
//! applied in order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::encode::{Encode, Encoder};

const READ: u32 = 0o444;
const WRITE: u32 = 0o222;
const EXECUTE: u32 = 0o111;
const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const OTHERS: u32 = 0o007;
/// What `=` clears when nobody is named.
const STANDARD: u32 = 0o6777;
const ALL: u32 = 0o7777;

/// Permission bits to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All of them.
    Bits(u32),
    /// A change to what is there: `u=rwX,go=rX`.
    Change(ModeChange),
}

impl Mode {
    /// Returns the bits of what had `old`.
    pub fn apply(&self, old: u32, is_dir: bool) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Change(change) => change.apply(old, is_dir),
        }
    }
}

/// A change of permission bits in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModeChange {
    text: String,
    actions: Vec<Action>,
}

/// Says that a text is no change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mode: {why}")]
pub struct ParseModeError {
    text: String,
    why: String,
}

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Set(u32),
    Clear(u32),
    /// Sets these if the file was executable for anybody or is a directory.
    SetIfExecutable(u32),
    /// Gives the bits that one class has to other ones.
    Copy {
        from: Class,
        /// The bits of the classes that get them.
        to: u32,
        sign: Sign,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    User,
    Group,
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Add,
    Remove,
    Assign,
}

impl ModeChange {
    /// Returns the bits of what had `old`.
    pub fn apply(&self, old: u32, is_dir: bool) -> u32 {
        let mut mode = old & ALL;
        for action in &self.actions {
            match *action {
                Action::Set(bits) => mode |= bits,
                Action::Clear(bits) => mode &= !bits,
                Action::SetIfExecutable(bits) if old & EXECUTE != 0 || is_dir => mode |= bits,
                Action::SetIfExecutable(_) => {}
                Action::Copy { from, to, sign } => mode = copied(mode, from, to, sign),
            }
        }
        mode
    }
}

fn copied(mode: u32, from: Class, to: u32, sign: Sign) -> u32 {
    let shift = match from {
        Class::User => 6,
        Class::Group => 3,
        Class::Others => 0,
    };
    let bits = mode >> shift & OTHERS;
    let everywhere = (bits | bits << 3 | bits << 6) & to;
    match sign {
        Sign::Add => mode | everywhere,
        Sign::Remove => mode & !everywhere,
        Sign::Assign => mode & !to | everywhere,
    }
}

impl FromStr for ModeChange {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, ParseModeError> {
        let mut actions = Vec::new();
        let parsed = text
            .split(',')
            .try_for_each(|clause| parse_clause(clause, &mut actions));
        let text = text.to_owned();
        match parsed {
            Ok(()) => Ok(Self { text, actions }),
            Err(why) => Err(ParseModeError { text, why }),
        }
    }
}

/// Reads `who`, then one or more of a sign with permissions.
fn parse_clause(clause: &str, actions: &mut Vec<Action>) -> Result<(), String> {
    let is_who = |c: char| "ugoa".contains(c);
    let parts = clause.trim_start_matches(is_who);
    let who = clause[..clause.len() - parts.len()]
        .chars()
        .map(bits_of_who);
    let who = who.fold(0, |all, bits| all | bits);
    let mut letters = parts.chars().peekable();
    if letters.peek().is_none() {
        return Err(match clause {
            "" => "a part of it is empty".to_owned(),
            clause => format!("`{clause}` lacks one of `+`, `-` and `=`"),
        });
    }
    while let Some(letter) = letters.next() {
        let sign = match letter {
            '+' => Sign::Add,
            '-' => Sign::Remove,
            '=' => Sign::Assign,
            other => return Err(unknown(other)),
        };
        let mut part = Part::new(sign, who);
        while let Some(letter) = letters.next_if(|letter| !"+-=".contains(*letter)) {
            part.add(letter, actions)?;
        }
        part.finish(actions);
    }
    Ok(())
}

fn bits_of_who(letter: char) -> u32 {
    match letter {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => OTHERS,
        _ => STANDARD,
    }
}

fn unknown(letter: char) -> String {
    format!("`{letter}` is none of `u`, `g`, `o`, `a`, `+`, `-`, `=`, `r`, `w`, `x`, `X`, `s`, `t`")
}

/// A sign and the permissions after it, while they are read.
struct Part {
    sign: Sign,
    /// Whose bits; none means everybody's.
    who: u32,
    bits: u32,
    if_executable: u32,
    is_assigned: bool,
}

impl Part {
    fn new(sign: Sign, who: u32) -> Self {
        Self {
            sign,
            who,
            bits: 0,
            if_executable: 0,
            is_assigned: false,
        }
    }

    fn add(&mut self, letter: char, actions: &mut Vec<Action>) -> Result<(), String> {
        let only_others = self.who != 0 && self.who & !OTHERS == 0;
        match letter {
            'r' => self.bits |= READ,
            'w' => self.bits |= WRITE,
            'x' => self.bits |= EXECUTE,
            'X' if self.sign == Sign::Remove => {}
            'X' => self.if_executable = EXECUTE,
            's' | 't' if only_others => {}
            's' => self.bits |= SET_ID,
            't' => {
                self.who |= STICKY;
                self.bits |= STICKY;
            }
            'u' => self.copy(Class::User, actions),
            'g' => self.copy(Class::Group, actions),
            'o' => self.copy(Class::Others, actions),
            other => return Err(unknown(other)),
        }
        Ok(())
    }

    fn copy(&mut self, from: Class, actions: &mut Vec<Action>) {
        self.flush(actions);
        self.is_assigned = true;
        let to = if self.who == 0 { ALL } else { self.who };
        let to = to & 0o777;
        let sign = self.sign;
        actions.push(Action::Copy { from, to, sign });
    }

    fn finish(mut self, actions: &mut Vec<Action>) {
        if self.bits == 0 && self.sign == Sign::Assign && !self.is_assigned {
            self.clear(actions);
        }
        self.flush(actions);
    }

    fn flush(&mut self, actions: &mut Vec<Action>) {
        let bits = self.masked(self.bits);
        self.bits = 0;
        if bits != 0 {
            match self.sign {
                Sign::Add => actions.push(Action::Set(bits)),
                Sign::Remove => actions.push(Action::Clear(bits)),
                Sign::Assign => {
                    self.clear(actions);
                    actions.push(Action::Set(bits));
                }
            }
        }
        let if_executable = self.masked(self.if_executable);
        self.if_executable = 0;
        if if_executable != 0 {
            if self.sign == Sign::Assign && !self.is_assigned {
                self.clear(actions);
            }
            actions.push(Action::SetIfExecutable(if_executable));
        }
    }

    fn clear(&mut self, actions: &mut Vec<Action>) {
        self.is_assigned = true;
        let bits = if self.who == 0 { STANDARD } else { self.who };
        actions.push(Action::Clear(bits));
    }

    fn masked(&self, bits: u32) -> u32 {
        if self.who == 0 { bits } else { bits & self.who }
    }
}

impl fmt::Display for ModeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ModeChange {
    type Error = ParseModeError;

    fn try_from(text: String) -> Result<Self, ParseModeError> {
        text.parse()
    }
}

impl From<ModeChange> for String {
    fn from(change: ModeChange) -> Self {
        change.text
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits(bits) => write!(f, "{bits:04o}"),
            Self::Change(change) => f.write_str(&change.text),
        }
    }
}

impl Encode for Mode {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Bits(bits) => encoder.variant(0).number((*bits).into()),
            Self::Change(change) => encoder.variant(1).text(&change.text),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What BuildKit made of 0711 (a directory), 0755, 0600 and 4755 (a directory).
    #[test]
    fn changes_agree_with_buildkit() {
        for (text, expected) in [
            ("+w", [0o733, 0o777, 0o622, 0o4777]),
            ("a+w", [0o733, 0o777, 0o622, 0o4777]),
            ("=w", [0o222, 0o222, 0o222, 0o222]),
            ("u=rwX,go=rX", [0o755, 0o755, 0o644, 0o755]),
            ("+x", [0o711, 0o755, 0o711, 0o4755]),
            ("a-w", [0o511, 0o555, 0o400, 0o4555]),
            ("g=u", [0o771, 0o775, 0o660, 0o4775]),
            ("o=g,g=", [0o701, 0o705, 0o600, 0o4705]),
            ("u+s", [0o4711, 0o4755, 0o4600, 0o4755]),
            ("+s", [0o6711, 0o6755, 0o6600, 0o6755]),
            ("g+s", [0o2711, 0o2755, 0o2600, 0o6755]),
            ("o+s", [0o711, 0o755, 0o600, 0o4755]),
            ("+t", [0o1711, 0o1755, 0o1600, 0o5755]),
            ("a+t", [0o1711, 0o1755, 0o1600, 0o5755]),
            ("o+t", [0o711, 0o755, 0o600, 0o4755]),
            ("=", [0, 0, 0, 0]),
            ("u=rws,g=rs", [0o6641, 0o6645, 0o6640, 0o6645]),
            ("go=", [0o700, 0o700, 0o600, 0o4700]),
            ("+X", [0o711, 0o755, 0o600, 0o4755]),
            ("g=ur", [0o741, 0o745, 0o640, 0o4745]),
            ("+rt", [0o1711, 0o1755, 0o1600, 0o5755]),
            ("=t", [0o1711, 0o1755, 0o1600, 0o5755]),
            ("u+rwx-w", [0o511, 0o555, 0o500, 0o4555]),
            ("u=rwx,go=u-w", [0o755, 0o755, 0o755, 0o755]),
            ("a=rX", [0o555, 0o555, 0o444, 0o555]),
            ("u=x,g=X", [0o111, 0o115, 0o100, 0o115]),
        ] {
            let change: ModeChange = text.parse().unwrap();
            let is = [
                (0o711, true),
                (0o755, false),
                (0o600, false),
                (0o4755, true),
            ];
            let got = is.map(|(mode, is_dir)| change.apply(mode, is_dir));
            assert_eq!(got, expected, "{text}: {got:?}");
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in [
            "", "z", "u", "u+x,", "u+z", "rwx", "u+x,,g+x", ",", "u x", "U+x", "+7",
        ] {
            let error = text.parse::<ModeChange>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn json_holds_the_text() {
        let mode = Mode::Change("u+x".parse().unwrap());
        let json = serde_json::to_string(&mode).unwrap();
        assert_eq!(json, r#"{"change":"u+x"}"#);
        assert_eq!(serde_json::from_str::<Mode>(&json).unwrap(), mode);
        assert!(serde_json::from_str::<Mode>(r#"{"change":"z"}"#).is_err());
    }
}
