//! What a key was made of, kept so that two keys can be compared.
//!
//! An [`Encoder`](crate::Encoder) that records keeps everything that it hashes, under the names
//! that the encoded values give to their parts. A record is complete by construction: there is no
//! way into a key but through the encoder. So of two different keys of one kind, the records
//! differ, and [`Record::differences`] says where.
//!
//! ```text
//!   record   parts in the order in which they were hashed
//!   part     a file, a variable, a flag …: a kind, a name and fields
//!   field    content, mode, owner …: the values that were hashed, as text
//! ```
//!
//! Contents are digests already. Values of variables whose name says that they are secret are
//! kept as digests, too.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Longest text that is kept as it is, in bytes; of a longer one the digest is kept.
const MAX_TEXT: usize = 512;

/// Words of a variable's name that say that its value is secret, as BuildKit's check
/// `SecretsUsedInArgOrEnv` has them.
pub const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// The note that says what a part is in the words of the user.
pub(crate) const SHOWN: &str = "shown";

/// Everything that went into a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    parts: Vec<Part>,
}

/// One thing that a key depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    kind: PartKind,
    name: String,
    fields: Vec<Field>,
}

/// One property of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Field {
    name: String,
    values: Vec<String>,
    /// Told, but not hashed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_note: bool,
}

/// What sort of thing a key depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// The command that runs, or what an instruction does.
    Instruction,
    /// A flag or a setting.
    Flag,
    /// A variable of the environment.
    Variable,
    /// A file, directory or link that is copied or mounted.
    File,
    /// A mount itself.
    Mount,
    /// The snapshot that the step works on, by the step that made it.
    Base,
    /// A snapshot that is mounted as a whole, by the step that made it.
    Input,
    /// How many things there are, and in which order.
    Shape,
}

/// One difference between two records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What sort of thing differs.
    pub kind: PartKind,
    /// Its name: a path, a variable, a flag.
    pub name: String,
    /// How it differs.
    #[serde(flatten)]
    pub change: Change,
}

/// How a part of one record differs from that of an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// It was not there.
    Added,
    /// It is no longer there.
    Removed,
    /// One of its fields has another value.
    Changed {
        /// Which field: `content`, `mode`.
        field: String,
        /// The older value.
        before: String,
        /// The value now.
        after: String,
    },
    /// The same things in another order.
    Reordered,
}

impl Record {
    /// Begins a part: what is written from now on belongs to it.
    pub(crate) fn begin(&mut self, kind: PartKind, name: String) {
        self.parts.push(Part {
            kind,
            name,
            fields: Vec::new(),
        });
    }

    /// Begins a field of the last part.
    pub(crate) fn begin_field(&mut self, name: &str, is_note: bool) {
        self.last_part().fields.push(Field {
            name: name.to_owned(),
            values: Vec::new(),
            is_note,
        });
    }

    /// Adds a value to the last field.
    pub(crate) fn push(&mut self, value: String) {
        let part = self.last_part();
        if part.fields.last().is_none_or(|field| field.is_note) {
            self.begin_field("", false);
        }
        if let Some(field) = self.last_part().fields.last_mut() {
            field.values.push(value);
        }
    }

    /// Adds something that is told of the last part without being hashed.
    pub(crate) fn note(&mut self, name: &str, value: String) {
        self.begin_field(name, true);
        if let Some(field) = self.last_part().fields.last_mut() {
            field.values.push(value);
        }
    }

    fn last_part(&mut self) -> &mut Part {
        if self.parts.is_empty() {
            self.begin(PartKind::Shape, String::new());
        }
        self.parts.last_mut().expect("there is one now")
    }

    /// Returns how this record, of a key, differs from that of another key, which is older.
    pub fn differences(&self, older: &Self) -> Vec<Difference> {
        let (before, after) = (older.by_name(), self.by_name());
        let mut found = Vec::new();
        for (part, nth) in self.numbered() {
            match before.get(&(part.kind, part.id(), nth)) {
                Some(old) => part.compare(old, &mut found),
                None => found.push(part.difference(Change::Added)),
            }
        }
        for (part, nth) in older.numbered() {
            if !after.contains_key(&(part.kind, part.id(), nth)) {
                found.push(part.difference(Change::Removed));
            }
        }
        // What the files have of a flag is told with the flag.
        for (flag, field) in [("chmod", "mode"), ("chown", "owner")] {
            let is_flag = |one: &Difference| one.kind == PartKind::Flag && one.name == flag;
            if found.iter().any(is_flag) {
                found.retain(|one| !one.is_of_file(field));
            }
        }
        // How many there are follows from which there are.
        if found.iter().any(|one| one.kind != PartKind::Shape) {
            found.retain(|one| one.kind != PartKind::Shape);
        }
        if found.is_empty() && !self.same_order(older) {
            found.push(Difference {
                kind: PartKind::Shape,
                name: String::new(),
                change: Change::Reordered,
            });
        }
        found
    }

    fn same_order(&self, older: &Self) -> bool {
        let names = |record: &Self| -> Vec<(PartKind, String)> {
            let name = |part: &Part| (part.kind, part.name.clone());
            record.parts.iter().map(name).collect()
        };
        names(self) == names(older)
    }

    /// Returns the parts, each with the number of earlier ones of the same name.
    fn numbered(&self) -> impl Iterator<Item = (&Part, usize)> {
        let mut seen: HashMap<(PartKind, &str), usize> = HashMap::new();
        self.parts.iter().map(move |part| {
            let nth = seen.entry((part.kind, part.id())).or_default();
            *nth += 1;
            (part, *nth)
        })
    }

    fn by_name(&self) -> HashMap<(PartKind, &str, usize), &Part> {
        let named = |(part, nth): (_, _)| named(part, nth);
        self.numbered().map(named).collect()
    }
}

impl Difference {
    fn is_of_file(&self, wanted: &str) -> bool {
        let Change::Changed { field, .. } = &self.change else {
            return false;
        };
        self.kind == PartKind::File && field == wanted
    }
}

impl Part {
    /// Returns what the part is found by in another record: there is one base, whatever made it.
    fn id(&self) -> &str {
        match self.kind {
            PartKind::Base => "",
            _ => &self.name,
        }
    }

    fn difference(&self, change: Change) -> Difference {
        Difference {
            kind: self.kind,
            name: self.name.clone(),
            change,
        }
    }

    /// Adds how this part differs from an older one of the same name.
    fn compare(&self, older: &Self, found: &mut Vec<Difference>) {
        if self.hashed().eq(older.hashed()) {
            return;
        }
        let mut names: Vec<&str> = Vec::new();
        for field in self.fields.iter().chain(&older.fields) {
            if !names.contains(&field.name.as_str()) {
                names.push(&field.name);
            }
        }
        if let (Some(before), Some(after)) = (older.value(SHOWN), self.value(SHOWN))
            && before != after
        {
            let field = String::new();
            found.push(self.difference(Change::Changed {
                field,
                before,
                after,
            }));
            return;
        }
        let before = found.len();
        for name in names {
            let (old, new) = (older.value(name), self.value(name));
            if old != new {
                found.push(self.difference(Change::Changed {
                    field: name.to_owned(),
                    before: old.unwrap_or_default(),
                    after: new.unwrap_or_default(),
                }));
            }
        }
        if found.len() == before {
            found.push(self.difference(Change::Reordered));
        }
    }

    fn hashed(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_note)
    }

    /// Returns all values of the fields of a name, for people.
    fn value(&self, name: &str) -> Option<String> {
        let fields = self.fields.iter().filter(|field| field.name == name);
        let values: Vec<&str> = fields
            .flat_map(|field| &field.values)
            .map(String::as_str)
            .collect();
        (!values.is_empty()).then(|| values.join(" "))
    }
}

fn named(part: &Part, nth: usize) -> ((PartKind, &str, usize), &Part) {
    ((part.kind, part.id(), nth), part)
}

/// Returns bytes as text: as they are if they can be read, else their digest.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= MAX_TEXT && text.chars().all(is_plain) => text.to_owned(),
        _ if bytes.len() == 32 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => Digest::blake3(bytes).to_string(),
    }
}

/// Returns true if the name of a variable says that its value is secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    // Wherever they stand, these mean nothing else.
    let clear = ["password", "passwd", "secret", "apikey", "credential"];
    words.any(|word| SECRET_WORDS.contains(&word) || clear.iter().any(|clear| word.contains(clear)))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            PartKind::Instruction if name.is_empty() => f.write_str("the instruction")?,
            PartKind::Instruction => write!(f, "the instruction's {name}")?,
            PartKind::Flag => write!(f, "flag `{name}`")?,
            PartKind::Variable => write!(f, "variable `{name}`")?,
            PartKind::File if name.is_empty() => f.write_str("what is selected")?,
            PartKind::File => write!(f, "file `{name}`")?,
            PartKind::Mount => write!(f, "mount `{name}`")?,
            PartKind::Base if name.is_empty() => f.write_str("what the step builds on")?,
            PartKind::Base | PartKind::Input => write!(f, "what `{name}` made")?,
            PartKind::Shape if name.is_empty() => f.write_str("the order of its inputs")?,
            PartKind::Shape => write!(f, "the number of {name}")?,
        }
        match &self.change {
            Change::Added => f.write_str(" is new"),
            Change::Removed => f.write_str(" is gone"),
            Change::Reordered => f.write_str(" differs"),
            Change::Changed {
                field,
                before,
                after,
            } => {
                if !field.is_empty() && self.kind != PartKind::Variable {
                    write!(f, ": {field}")?;
                }
                let is_hidden = self.kind == PartKind::Variable && is_secret_name(name);
                // Two digests tell nobody anything.
                if is_hidden
                    || match self.kind {
                        PartKind::File => matches!(field.as_str(), "content" | "path"),
                        PartKind::Base | PartKind::Input => field.is_empty(),
                        _ => false,
                    }
                {
                    return f.write_str(" changed");
                }
                let is_mode = field == "mode";
                let (before, after) = (shown(before, is_mode), shown(after, is_mode));
                write!(f, " changed from {before} to {after}")
            }
        }
    }
}

/// Returns a value as a sentence shows it: short, and on one line.
fn shown(value: &str, is_mode: bool) -> String {
    const LONGEST: usize = 80;
    if value.is_empty() {
        return "nothing".to_owned();
    }
    if is_mode && let Ok(bits) = value.parse::<u32>() {
        return format!("{bits:04o}");
    }
    let value = value.replace('\n', "\\n");
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &value[..end]),
        None => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use crate::Encoder;

    use super::*;

    fn record(write: impl FnOnce(&mut Encoder)) -> (Digest, Record) {
        let mut encoder = Encoder::recording("test");
        write(&mut encoder);
        encoder.finish_with_record()
    }

    fn file(encoder: &mut Encoder, name: &str, content: &str, mode: u64) {
        encoder.part(PartKind::File, || name.to_owned());
        encoder.field("content").text(content);
        encoder.field("mode").number(mode);
    }

    fn told(after: &Record, before: &Record) -> Vec<String> {
        let differences = after.differences(before);
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn recording_does_not_change_the_digest() {
        let mut plain = Encoder::new("test");
        file(&mut plain, "a", "x", 1);
        assert_eq!(plain.finish(), record(|e| file(e, "a", "x", 1)).0);
    }

    #[test]
    fn differences_name_the_file_and_the_field() {
        let (_, before) = record(|e| {
            file(e, "a", "x", 1);
            file(e, "b", "y", 2);
        });
        let (_, after) = record(|e| {
            file(e, "b", "z", 2);
            file(e, "c", "w", 2);
        });
        let expected = [
            "file `b`: content changed",
            "file `c` is new",
            "file `a` is gone",
        ];
        assert_eq!(told(&after, &before), expected);
        assert!(told(&after, &after).is_empty());
    }

    #[test]
    fn another_order_is_a_difference() {
        let (one, before) = record(|e| {
            file(e, "a", "x", 1);
            file(e, "b", "y", 2);
        });
        let (two, after) = record(|e| {
            file(e, "b", "y", 2);
            file(e, "a", "x", 1);
        });
        assert_ne!(one, two);
        assert_eq!(told(&after, &before), ["the order of its inputs differs"]);
    }

    #[test]
    fn a_note_is_told_only_with_a_difference() {
        let base = |id: &str, name: &str| {
            record(|e| {
                e.part(PartKind::Base, String::new);
                e.text(id);
                e.note("image", || Some(name.to_owned()));
            })
            .1
        };
        assert!(told(&base("1", "b"), &base("1", "a")).is_empty());
        let expected = [
            "what the step builds on changed",
            "what the step builds on: image changed from `a` to `b`",
        ];
        assert_eq!(told(&base("2", "b"), &base("1", "a")), expected);
    }

    #[test]
    fn secret_names() {
        for name in [
            "TOKEN",
            "NPM_TOKEN",
            "db_password",
            "AWS-SECRET",
            "API_KEY",
            "MYPASSWORD",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["MONKEY", "PATH", "TOKENIZER", "KEYBOARD"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
