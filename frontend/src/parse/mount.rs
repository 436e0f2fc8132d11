//! `RUN --mount`: its text to fields, and its fields, once expanded, to options.
//!
//! The text is one record of comma-separated values. It is split when the file is parsed, and a
//! `from` is read then, since it decides which stages are needed. All else is read in order when
//! the stage is evaluated: a value may hold variables, and some keys depend on a `type` before
//! them.

mod csv;
#[cfg(test)]
mod tests;
mod values;

use kiln_graph::Sharing;

use crate::diagnostic::{Diagnostic, Span};
use crate::lines::Word;
use crate::parse::mount::values::{flag, id, octal, size};
use crate::suggest::nearest;

/// Keys that stand before a `=`.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "env",
    "mode",
    "uid",
    "gid",
];
/// Keys that may stand alone.
const BARE: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];
const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];
const SHARING: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

/// A `--mount` as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFlag {
    pub(crate) span: Span,
    fields: Vec<Field>,
    /// The last `from`, unless it is empty.
    pub(crate) from: Option<Word>,
}

/// A `key=value`, or a word that stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    /// In lower case.
    key: String,
    value: Option<Word>,
    /// The field as it is written.
    word: Word,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountType {
    /// Returns the name in the language.
    pub(crate) fn name(self) -> &'static str {
        let mut types = TYPES.into_iter();
        let found = types.find(|(_, known)| *known == self);
        found.map_or("", |(name, _)| name)
    }

    /// Cache, secret and ssh mounts make a file or folder of their own.
    fn has_owner(self) -> bool {
        matches!(self, Self::Cache | Self::Secret | Self::Ssh)
    }
}

/// The options of a mount, variables expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) kind: MountType,
    pub(crate) from: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) id: String,
    pub(crate) read_only: bool,
    pub(crate) required: bool,
    pub(crate) size: Option<u64>,
    pub(crate) sharing: Option<Sharing>,
    pub(crate) env: Option<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// Expands a value.
pub(crate) type Expand<'a> = &'a dyn Fn(&Word) -> Result<String, Diagnostic>;

impl MountFlag {
    /// Splits the value of a flag, whose span is that of the whole flag.
    pub(crate) fn parse(word: &Word) -> Result<Self, Diagnostic> {
        let records = csv::split(&word.text).map_err(|error| {
            let message = format!("failed to parse csv mounts: {error}");
            Diagnostic::error(word.span, message)
                .with_help("write `--mount=type=cache,target=/path`, without blanks")
        })?;
        let fields: Vec<Field> = records
            .into_iter()
            .map(|(text, range)| Field::new(text, part(word, range.start, range.end)))
            .collect();
        let from = fields.iter().rfind(|field| field.key == "from");
        let from = from.and_then(|field| field.value.clone());
        if let Some(value) = from.as_ref().filter(|value| has_variable(&value.text)) {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            return Err(Diagnostic::error(value.span, message)
                .with_help("write `FROM $image AS name` and then `from=name`"));
        }
        Ok(Self {
            span: word.span,
            fields,
            from: from.filter(|value| !value.text.is_empty()),
        })
    }

    /// Returns the fields as they are written.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.fields.iter().map(|f| f.word.text.as_str()).collect()
    }

    /// Reads the options in their order.
    pub(crate) fn options(&self, expand: Expand<'_>) -> Result<MountOptions, Diagnostic> {
        let mut reader = Reader::default();
        for field in &self.fields {
            match &field.value {
                None => reader.bare(field)?,
                Some(value) => reader.option(field, &expand(value)?)?,
            }
        }
        reader.finish(self.span)
    }
}

/// Reads the text of a `--mount` as if nothing in it were a variable.
#[cfg(test)]
pub(crate) fn read(text: &str) -> Result<MountOptions, Diagnostic> {
    let word = Word {
        text: text.to_owned(),
        span: Span::new(0, text.len()),
    };
    MountFlag::parse(&word)?.options(&|value| Ok(value.text.clone()))
}

/// A `$` at the end is no variable.
fn has_variable(text: &str) -> bool {
    text.trim_end_matches('\n')
        .char_indices()
        .any(|(at, c)| c == '$' && at + 1 < text.len())
}

/// Returns where a part of a flag's value stands: the whole flag if quotes or line breaks hide
/// that.
fn part(word: &Word, start: usize, end: usize) -> Span {
    let length = word.span.end - word.span.start;
    match length.checked_sub(word.text.len()) {
        Some(before) if before == 0 || before == "--mount=".len() => {
            let from = word.span.start + before;
            Span::new(from + start, from + end)
        }
        _ => word.span,
    }
}

impl Field {
    fn new(text: String, span: Span) -> Self {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (text.to_lowercase(), None),
        };
        // A quoted field is longer than its text.
        let is_plain = span.end - span.start == text.len();
        let value = value.map(|value| Word {
            text: value.to_owned(),
            span: match is_plain {
                true => Span::new(span.end - value.len(), span.end),
                false => span,
            },
        });
        Self {
            key,
            value,
            word: Word { text, span },
        }
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.word.span, message)
    }

    fn value_error(&self, message: impl Into<String>) -> Diagnostic {
        let span = self.value.as_ref().map_or(self.word.span, |v| v.span);
        Diagnostic::error(span, message)
    }
}

#[derive(Debug, Default)]
struct Reader {
    options: MountOptions,
    read_only: Option<bool>,
}

impl Reader {
    fn bare(&mut self, field: &Field) -> Result<(), Diagnostic> {
        match field.key.as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.only_of(field, &[MountType::Secret, MountType::Ssh])?;
                self.options.required = true;
            }
            key => {
                let text = &field.word.text;
                let message = format!("invalid field `{text}`: it must be a key=value pair");
                let known = BARE.iter().chain(&KEYS).copied();
                return Err(field.error(message).with_suggestion(nearest(key, known)));
            }
        }
        Ok(())
    }

    fn option(&mut self, field: &Field, value: &str) -> Result<(), Diagnostic> {
        let key = field.key.as_str();
        let invalid = || field.value_error(format!("invalid value for `{key}`: `{value}`"));
        let options = &mut self.options;
        match key {
            "type" => options.kind = one_of(field, value, "mount type", &TYPES)?,
            "from" => value.clone_into(&mut options.from),
            "source" | "src" => value.clone_into(&mut options.source),
            "target" | "dst" | "destination" => value.clone_into(&mut options.target),
            "id" => value.clone_into(&mut options.id),
            "env" => options.env = Some(value.to_owned()),
            "sharing" => options.sharing = Some(one_of(field, value, "sharing value", &SHARING)?),
            "readonly" | "ro" => self.read_only = Some(flag(value).ok_or_else(invalid)?),
            "readwrite" | "rw" => self.read_only = Some(!flag(value).ok_or_else(invalid)?),
            "mode" => options.mode = Some(octal(value).ok_or_else(invalid)?),
            "uid" => options.uid = Some(id(value).ok_or_else(invalid)?),
            "gid" => options.gid = Some(id(value).ok_or_else(invalid)?),
            "required" => {
                self.only_of(field, &[MountType::Secret, MountType::Ssh])?;
                self.options.required = flag(value).ok_or_else(invalid)?;
            }
            "size" => {
                self.only_of(field, &[MountType::Tmpfs])?;
                let size = size(value).ok_or_else(invalid)?;
                self.options.size = (size > 0).then_some(size);
            }
            _ => {
                let message = format!("unexpected key `{key}` in `{}`", field.word.text);
                return Err(field
                    .error(message)
                    .with_suggestion(nearest(key, KEYS.iter().copied())));
            }
        }
        Ok(())
    }

    /// Some keys are known only behind the type that has them.
    fn only_of(&self, field: &Field, kinds: &[MountType]) -> Result<(), Diagnostic> {
        let kind = self.options.kind;
        if kinds.contains(&kind) {
            return Ok(());
        }
        let (key, name) = (&field.key, kind.name());
        let message = format!("unexpected key `{key}` for mount type `{name}`");
        let types: Vec<String> = kinds
            .iter()
            .map(|kind| format!("`type={}`", kind.name()))
            .collect();
        let help = format!(
            "it belongs to {}, which must stand before it",
            types.join(" and ")
        );
        Err(field.error(message).with_help(help))
    }

    fn finish(mut self, span: Span) -> Result<MountOptions, Diagnostic> {
        let kind = self.options.kind;
        let writes = matches!(kind, MountType::Cache | MountType::Tmpfs);
        self.options.read_only = self.read_only.unwrap_or(!writes);
        match self.fault() {
            Some(message) => Err(Diagnostic::error(span, message)),
            None => Ok(self.options),
        }
    }

    /// Returns what does not go together.
    fn fault(&self) -> Option<String> {
        let options = &self.options;
        let (kind, name) = (options.kind, options.kind.name());
        let owner = [
            ("mode", options.mode),
            ("uid", options.uid),
            ("gid", options.gid),
        ];
        let given = owner.into_iter().find(|(_, value)| value.is_some());
        if let Some((key, _)) = given.filter(|_| !kind.has_owner()) {
            return Some(format!(
                "`{key}` is not allowed for mounts of type `{name}`"
            ));
        }
        if kind == MountType::Secret {
            return secret_fault(options).map(str::to_owned);
        }
        if options.sharing.is_some() && kind != MountType::Cache {
            return Some(format!("invalid cache sharing set for a `{name}` mount"));
        }
        None
    }
}

fn secret_fault(options: &MountOptions) -> Option<&'static str> {
    let is_given = |text: &str| !text.is_empty();
    if is_given(&options.from) {
        return Some("a secret mount should not have a `from`");
    }
    if options.sharing.is_some() {
        return Some("a secret mount should not define `sharing`");
    }
    if ![&options.source, &options.target, &options.id]
        .into_iter()
        .any(|text| is_given(text))
    {
        return Some("invalid secret mount: one of `id`, `source`, `target` is required");
    }
    if is_given(&options.source) && is_given(&options.id) {
        return Some("both `source` and `id` of a secret mount can't be set");
    }
    None
}

/// Returns what a word stands for, whatever its case.
fn one_of<T: Copy>(
    field: &Field,
    value: &str,
    what: &str,
    known: &[(&'static str, T)],
) -> Result<T, Diagnostic> {
    let lower = value.to_lowercase();
    let found = known.iter().find(|(name, _)| *name == lower);
    found.map(|(_, item)| *item).ok_or_else(|| {
        let names = known.iter().map(|(name, _)| *name);
        let diagnostic = field.value_error(format!("unsupported {what} `{value}`"));
        match nearest(value, names.clone()) {
            Some(name) => diagnostic.with_suggestion(Some(name)),
            None => {
                let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
                diagnostic.with_help(format!("known are {}", names.join(", ")))
            }
        }
    })
}
