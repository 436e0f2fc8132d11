//! One record of comma-separated values, as RFC 4180 has it and Go's `encoding/csv` reads it.
//!
//! A field that begins with a quote ends with one, and holds two for one; in any other a quote
//! is an error. Lines without text are skipped; what stands behind the first line is not read.

use std::ops::Range;

/// Says why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CsvError {
    /// There is nothing.
    #[error("EOF")]
    Empty,
    /// A quote inside a field that does not begin with one.
    #[error("parse error on line 1, column {0}: bare \" in non-quoted field")]
    BareQuote(usize),
    /// Text behind a closing quote, or no closing quote.
    #[error("parse error on line 1, column {0}: extraneous or missing \" in quoted field")]
    Quote(usize),
}

/// Returns each field's text and where it stands.
pub(super) fn split(text: &str) -> Result<Vec<(String, Range<usize>)>, CsvError> {
    let mut at = text.len() - text.trim_start_matches(['\r', '\n']).len();
    if at == text.len() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    loop {
        let (field, end) = match text[at..].strip_prefix('"') {
            Some(_) => quoted(text, at)?,
            None => plain(text, at)?,
        };
        fields.push((field, at..end));
        if !text[end..].starts_with(',') {
            return Ok(fields);
        }
        at = end + 1;
    }
}

fn plain(text: &str, at: usize) -> Result<(String, usize), CsvError> {
    let rest = &text[at..];
    let length = rest.find([',', '\n']).unwrap_or(rest.len());
    let mut field = &rest[..length];
    if rest[length..].starts_with('\n') || length == rest.len() {
        field = field.strip_suffix('\r').unwrap_or(field);
    }
    match field.find('"') {
        Some(quote) => Err(CsvError::BareQuote(at + quote + 1)),
        None => Ok((field.to_owned(), at + length)),
    }
}

fn quoted(text: &str, at: usize) -> Result<(String, usize), CsvError> {
    let (mut field, mut here) = (String::new(), at + 1);
    loop {
        let Some(length) = text[here..].find('"') else {
            return Err(CsvError::Quote(text.len() + 1));
        };
        field.push_str(&text[here..here + length]);
        here += length + 1;
        match text[here..].chars().next() {
            Some('"') => {
                field.push('"');
                here += 1;
            }
            None | Some(',' | '\n') => return Ok((field, here)),
            Some('\r') if matches!(&text[here + 1..], "" | "\n") => return Ok((field, here)),
            Some(_) => return Err(CsvError::Quote(here)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Result<Vec<String>, CsvError> {
        let fields = split(text)?.into_iter();
        Ok(fields.map(|(field, _)| field).collect())
    }

    #[test]
    fn records_are_split_at_commas_outside_of_quotes() {
        for (text, expected) in [
            ("a", &["a"][..]),
            ("a,b=c", &["a", "b=c"]),
            (",a,,", &["", "a", "", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("\"\",x", &["", "x"]),
            (" a , b ", &[" a ", " b "]),
            ("\n\r\na,b\nc", &["a", "b"]),
            ("ä,\"ö,ü\"", &["ä", "ö,ü"]),
            ("a\r", &["a"]),
        ] {
            assert_eq!(fields(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn quotes_in_wrong_places_are_errors() {
        for (text, expected) in [
            ("", CsvError::Empty),
            ("\n", CsvError::Empty),
            ("a\"b", CsvError::BareQuote(2)),
            ("a, \"b\"", CsvError::BareQuote(4)),
            ("\"a\"b", CsvError::Quote(3)),
            ("\"a", CsvError::Quote(3)),
            ("\"", CsvError::Quote(2)),
        ] {
            assert_eq!(fields(text).unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn fields_know_where_they_stand() {
        let text = "ab,\"c,d\",e";
        let found = split(text).unwrap().into_iter();
        let parts: Vec<&str> = found.map(|(_, range)| &text[range]).collect();
        assert_eq!(parts, ["ab", "\"c,d\"", "e"]);
    }
}
