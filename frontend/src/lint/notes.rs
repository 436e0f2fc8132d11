//! What stands around instructions: the comments above them, and their words as typed.
//!
//! The tree of instructions has none of it, because nothing that is built depends on it. Found
//! again by the place of an instruction in the file.

use std::collections::BTreeMap;

use crate::diagnostic::Span;
use crate::lint::config::Config;

/// The notes of all instructions, by where they start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(BTreeMap<usize, Note>);

/// What stands around one instruction.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    /// The instruction with its heredocs.
    pub(crate) span: Span,
    /// Its name as typed; for `FROM` the whole line.
    pub(crate) typed: String,
    /// The comments above it, each without its mark; an empty one parts, a blank line does not.
    pub(crate) comments: Vec<String>,
}

impl Notes {
    pub(crate) fn insert(&mut self, note: Note) {
        self.0.insert(note.span.start, note);
    }

    /// Returns the notes in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Note> {
        self.0.values()
    }

    /// Returns the note of the instruction that `at` is in.
    pub(crate) fn of(&self, at: usize) -> Option<&Note> {
        let (_, note) = self.0.range(..=at).next_back()?;
        (at <= note.span.end).then_some(note)
    }

    /// Returns what is said of `name` above the instruction that `at` is in.
    pub(crate) fn description(&self, at: usize, name: &str) -> Option<&str> {
        self.of(at)?.description(name)
    }
}

impl Note {
    /// Returns the instruction's name as typed.
    pub(crate) fn name(&self) -> &str {
        self.typed.split_whitespace().next().unwrap_or_default()
    }

    /// Returns what a comment `# name text` says.
    pub(crate) fn description(&self, name: &str) -> Option<&str> {
        let said = |comment: &'_ String| -> Option<usize> {
            let rest = comment.strip_prefix(name)?.strip_prefix(' ')?;
            Some(comment.len() - rest.len())
        };
        let mut comments = self.comments.iter();
        comments.find_map(|comment| said(comment).map(|from| &comment[from..]))
    }

    /// Returns the options that hold for this instruction only.
    pub(crate) fn config(&self) -> Option<Config> {
        let mut comments = self.comments.iter();
        comments.find_map(|comment| Config::of_comment(comment))
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn comments(text: &str) -> Vec<Vec<String>> {
        let file = parse(text).unwrap();
        file.notes
            .iter()
            .map(|note| note.comments.clone())
            .collect()
    }

    #[test]
    fn comments_belong_to_the_instruction_below() {
        let text = "# a\n# b\nFROM x\n# c\n\n# d\nRUN y \\\n# no\n z\n#\n#e\nRUN z\nRUN w\n";
        let expected = [&["a", "b"][..], &["c", "d"], &["e"], &[]];
        assert_eq!(comments(text), expected);
    }

    #[test]
    fn descriptions_start_with_a_name() {
        let text = "# A  two words \n# AB no\nARG A B\nFROM x";
        let file = parse(text).unwrap();
        let at = text.find("ARG").unwrap();
        assert_eq!(file.notes.description(at, "A"), Some(" two words"));
        assert_eq!(file.notes.description(at + 5, "AB"), Some("no"));
        assert_eq!(file.notes.description(at, "B"), None);
    }
}
