//! A Dockerfile's bytes as text, also where they are not UTF-8.
//!
//! BuildKit builds a file whose comments, maintainer or labels are in Latin-1, and so does kiln:
//! bytes that are no text become U+FFFD there, which is what BuildKit writes into a label. Where
//! such bytes would decide what is built, the file is refused.

/// Returns the text, or the number of the first line whose bytes cannot be replaced.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<String, usize> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.into_bytes(),
    };
    let mut text = String::with_capacity(bytes.len());
    let mut place = Place::default();
    for (at, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let replaced = replace(line);
        let may_be_replaced = place.enter(&replaced);
        if !may_be_replaced && std::str::from_utf8(line).is_err() {
            return Err(at + 1);
        }
        text.push_str(&replaced);
    }
    Ok(text)
}

/// Each byte that is no text becomes one character, as Go does it.
fn replace(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        let n_invalid = chunk.invalid().len();
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, n_invalid));
    }
    text
}

/// Where in the file a line stands. In doubt it is where bytes matter.
#[derive(Debug, Default)]
struct Place {
    escape: Option<char>,
    /// The instruction goes on, and is one that may have such bytes.
    continued: Option<bool>,
    /// Ends of the heredocs that are still to come.
    heredocs: Vec<String>,
}

impl Place {
    /// Goes to the next line; returns true if its bytes decide about nothing but notes.
    fn enter(&mut self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(end) = self.heredocs.first() {
            if line.trim_start_matches('\t') == end {
                self.heredocs.remove(0);
            }
            return false;
        }
        let content = line.trim_start_matches('\u{feff}').trim();
        if let Some(comment) = content.strip_prefix('#') {
            self.read_escape(comment);
            return true;
        }
        if content.is_empty() {
            return true;
        }
        let is_note = self.continued.unwrap_or_else(|| is_note(content));
        let goes_on = content.ends_with(self.escape.unwrap_or('\\'));
        self.continued = goes_on.then_some(is_note);
        self.heredocs = heredocs(content);
        is_note && self.heredocs.is_empty()
    }

    fn read_escape(&mut self, comment: &str) {
        let Some((key, value)) = comment.split_once('=') else {
            return;
        };
        if key.trim().eq_ignore_ascii_case("escape") && self.escape.is_none() {
            self.escape = value.trim().chars().next();
        }
    }
}

fn is_note(content: &str) -> bool {
    let keyword = content.split_whitespace().next().unwrap_or_default();
    ["LABEL", "MAINTAINER"]
        .iter()
        .any(|note| keyword.eq_ignore_ascii_case(note))
}

/// Returns the ends of all heredocs that a line may begin; too many do no harm.
fn heredocs(content: &str) -> Vec<String> {
    let starts = content.split("<<").skip(1);
    let end = |start: &str| {
        let name = start.trim_start_matches(['-', '"', '\'']);
        let length = name.find(|c: char| !c.is_alphanumeric() && c != '_');
        name[..length.unwrap_or(name.len())].to_owned()
    };
    starts.map(end).filter(|end| !end.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String, usize> {
        text_of(bytes.to_vec())
    }

    #[test]
    fn notes_may_have_other_bytes() {
        for (bytes, expected) in [
            (&b"FROM a\n# caf\xe9\n"[..], "FROM a\n# caf\u{fffd}\n"),
            (
                b"FROM a\nMAINTAINER J\xf6rg\r\n",
                "FROM a\nMAINTAINER J\u{fffd}rg\r\n",
            ),
            (
                b"label a=b \\\n # \xe9\n\n c=\xe9\xe9\nRUN x",
                "label a=b \\\n # \u{fffd}\n\n c=\u{fffd}\u{fffd}\nRUN x",
            ),
            (b"RUN a \\\n# \xe9\n b", "RUN a \\\n# \u{fffd}\n b"),
            (
                b"# escape=`\nLABEL a=b `\n c=\xe9\n",
                "# escape=`\nLABEL a=b `\n c=\u{fffd}\n",
            ),
            (
                b"RUN <<END\nx\nEND\n# \xe9\n",
                "RUN <<END\nx\nEND\n# \u{fffd}\n",
            ),
        ] {
            assert_eq!(text(bytes).as_deref(), Ok(expected));
        }
        assert_eq!(text("RUN é".as_bytes()).as_deref(), Ok("RUN é"));
    }

    #[test]
    fn other_lines_must_be_text() {
        for (bytes, line) in [
            (&b"FROM a\nRUN echo \xe9\n"[..], 2),
            (b"FROM a\n# \xe9\nRUN a \\\n \xe9", 4),
            (b"FROM a\nRUN <<'END'\n# \xe9\nEND\n", 3),
            (b"FROM a\nLABEL a=b\nENV a=\xe9\n", 3),
            (b"LABEL a=b\\\n c=d\nCOPY \xe9 /\n", 3),
            (b"# escape=`\nLABEL a=b\\\n c=\xe9\n", 3),
            (b"\xff\xfeF\0R\0O\0M\0", 1),
        ] {
            assert_eq!(text(bytes), Err(line), "{}", bytes.escape_ascii());
        }
    }
}
