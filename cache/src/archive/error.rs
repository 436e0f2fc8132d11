//! What can be wrong with an archive.

use std::io;

/// Why an entry is refused, in words that follow a colon.
pub(super) type Problem = &'static str;

/// Longest name that an error message shows.
const SHOWN: usize = 200;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The input failed.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// Where in the uncompressed archive.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// The archive stops in the middle of something.
    #[error("the archive ends at byte {offset}, in the middle of entry `{entry}`")]
    Truncated {
        /// The entry that was being read.
        entry: String,
        /// Where the input ended.
        offset: u64,
    },
    /// An entry breaks the format, or can be understood in two ways.
    #[error("entry `{entry}` at byte {offset} of the archive is malformed: {problem}")]
    Malformed {
        /// The entry, as far as its name is known.
        entry: String,
        /// Where its header starts.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Returns a name that is safe and short enough for a message.
pub(super) fn name_for_people(name: &[u8]) -> String {
    let shown = &name[..name.len().min(SHOWN)];
    let text = String::from_utf8_lossy(shown).escape_debug().to_string();
    if name.len() > SHOWN {
        return format!("{text}…");
    }
    text
}
