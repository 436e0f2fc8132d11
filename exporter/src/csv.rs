//! One line of comma-separated values, as Go's `encoding/csv` reads it.

/// Splits a line into fields; `None` if a quote is not closed or stands where it must not.
///
/// A field that starts with `"` ends with `"`, may hold commas, and has `""` for a quote.
pub fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if !rest.starts_with('"') && field.contains('"') {
            return None;
        }
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// Returns a field whose first quote is behind us, and what follows its last one.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn quotes_protect_commas() {
        for (line, expected) in [
            ("a=b,c=d", &["a=b", "c=d"][..]),
            (r#""name=a,b",push=true"#, &["name=a,b", "push=true"]),
            (r#""a=""x""""#, &[r#"a="x""#]),
            ("", &[""]),
            ("a,", &["a", ""]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for line in [r#""open"#, r#"a="b""#, r#""a"b"#] {
            assert_eq!(fields(line), None, "{line}");
        }
    }
}
