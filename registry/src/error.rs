//! What can go wrong between kiln and a registry.
//!
//! Text that a registry sent is cut to a line's length and stripped of control characters before
//! it gets into an error, so that it cannot write to a terminal. URLs are never part of a message:
//! those of uploads and redirects carry secrets.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use kiln_graph::Digest;
use serde::Deserialize;

const MAX_TEXT: usize = 400;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What was being done, to what, at which host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was being done: `pull blob`.
    pub action: &'static str,
    /// The image, repository or blob: `docker.io/library/debian:bookworm`.
    pub subject: String,
    /// The host that answered or did not: the registry, or its token server.
    pub host: String,
    /// The host is a mirror of the registry.
    pub is_at_mirror: bool,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`", self.action, self.subject)
    }
}

impl Operation {
    pub(crate) fn new(action: &'static str, subject: String, host: &str) -> Arc<Self> {
        let host = host.to_owned();
        Arc::new(Self {
            action,
            subject,
            host,
            is_at_mirror: false,
        })
    }

    pub(crate) fn at(&self, host: &str) -> Arc<Self> {
        Self::new(self.action, self.subject.clone(), host)
    }

    pub(crate) fn at_mirror(&self, host: &str) -> Arc<Self> {
        Arc::new(Self {
            host: host.to_owned(),
            is_at_mirror: true,
            ..self.clone()
        })
    }
}

/// Says why a registry operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Certificates or credentials cannot be used.
    #[error("cannot {what}")]
    Setup {
        /// What could not be done.
        what: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The registry does not have it.
    #[error("{operation}: not found at `{}` ({status}: {text})", operation.host)]
    NotFound {
        /// What was being done.
        operation: Arc<Operation>,
        /// HTTP status.
        status: u16,
        /// The registry's own words.
        text: String,
    },
    /// The registry or its token server wants other credentials, or none will do.
    #[error("{operation}: access denied by `{}` ({status}: {text})", operation.host)]
    Denied {
        /// What was being done.
        operation: Arc<Operation>,
        /// HTTP status.
        status: u16,
        /// The registry's own words.
        text: String,
    },
    /// No connection, a broken connection, or silence.
    #[error("{operation}: `{}` cannot be reached", operation.host)]
    Unreachable {
        /// What was being done.
        operation: Arc<Operation>,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The bytes are not those that the digest names.
    #[error("{operation}: `{}` sent content with digest `{actual}` instead of `{expected}`", operation.host)]
    WrongDigest {
        /// What was being done.
        operation: Arc<Operation>,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is shorter or longer than its descriptor says.
    #[error("{operation}: got {actual} bytes from `{}` instead of {expected}", operation.host)]
    WrongSize {
        /// What was being done.
        operation: Arc<Operation>,
        /// The size that was asked for.
        expected: u64,
        /// The size that was announced or came.
        actual: u64,
    },
    /// The answer is an error of the registry, or nothing that can be used.
    #[error("{operation}: `{}` gave an answer that cannot be used ({status}: {text})", operation.host)]
    Answer {
        /// What was being done.
        operation: Arc<Operation>,
        /// HTTP status.
        status: u16,
        /// The registry's own words, or what is wrong with its answer.
        text: String,
    },
    /// The caller's sink or source failed.
    #[error("{operation}: the local copy cannot be read or written")]
    Local {
        /// What was being done.
        operation: Arc<Operation>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RegistryError {
    pub(crate) fn setup(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Setup {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Returns true if bytes of a mirror were wrong: it is not asked again, others may do better.
    pub fn is_of_mirror(&self) -> bool {
        matches!(self, Self::WrongDigest { operation, .. } if operation.is_at_mirror)
    }

    pub(crate) fn unreachable(operation: &Arc<Operation>, source: impl Into<BoxError>) -> Self {
        Self::Unreachable {
            operation: operation.clone(),
            source: source.into(),
        }
    }

    pub(crate) fn local(operation: &Arc<Operation>, source: io::Error) -> Self {
        Self::Local {
            operation: operation.clone(),
            source,
        }
    }

    /// An answer whose status is fine and whose content is not.
    pub(crate) fn unusable(
        operation: &Arc<Operation>,
        status: reqwest::StatusCode,
        text: impl Into<String>,
    ) -> Self {
        Self::Answer {
            operation: operation.clone(),
            status: status.as_u16(),
            text: text.into(),
        }
    }

    /// An answer with an error status and perhaps an error document.
    pub(crate) fn status(
        operation: &Arc<Operation>,
        status: reqwest::StatusCode,
        body: &[u8],
    ) -> Self {
        let operation = operation.clone();
        let mut text = error_text(body);
        if text.is_empty() {
            text = status.canonical_reason().unwrap_or("no text").to_owned();
        }
        let status = status.as_u16();
        match status {
            401 | 403 => Self::Denied {
                operation,
                status,
                text,
            },
            404 => Self::NotFound {
                operation,
                status,
                text,
            },
            _ => Self::Answer {
                operation,
                status,
                text,
            },
        }
    }
}

#[derive(Deserialize)]
struct ErrorDocument {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    // Token servers speak OAuth 2, or their own.
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    details: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Returns what a registry says in an error document, on one line.
fn error_text(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<ErrorDocument>(body) else {
        let text = String::from_utf8_lossy(body);
        // A proxy's error page helps nobody.
        let is_page = text.trim_start().starts_with('<');
        return if is_page { String::new() } else { clean(&text) };
    };
    let mut parts = Vec::new();
    for entry in document.errors {
        parts.push(match (entry.code.as_str(), entry.message.as_str()) {
            (code, "") => code.to_owned(),
            ("", message) => message.to_owned(),
            (code, message) => format!("{code}: {message}"),
        });
    }
    parts.extend([
        document.error_description,
        document.details,
        document.message,
    ]);
    parts.retain(|part| !part.is_empty());
    clean(&parts.join("; "))
}

/// Returns `text` on one line, short, without control characters.
pub(crate) fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.trim().chars().take(MAX_TEXT).map(visible).collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_text_is_taken_from_error_documents() {
        for (body, text) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
                "DENIED: no",
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, "A; b"),
            (
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password",
            ),
            (
                r#"{"errors":[{"code":"X","message":"a\u001b[2Jb\nc"}]}"#,
                "X: a [2Jb c",
            ),
            ("<html>502</html>", ""),
            ("plain\r\ntext", "plain text"),
            ("", ""),
        ] {
            assert_eq!(error_text(body.as_bytes()), text, "{body}");
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        let operation = Operation::new("pull manifest", "h/x:1".to_owned(), "h");
        let of = |status: u16| {
            let status = reqwest::StatusCode::from_u16(status).unwrap();
            RegistryError::status(&operation, status, b"")
        };
        assert!(matches!(of(401), RegistryError::Denied { .. }));
        assert!(matches!(of(403), RegistryError::Denied { .. }));
        assert!(matches!(of(404), RegistryError::NotFound { .. }));
        assert!(matches!(of(500), RegistryError::Answer { .. }));
        let text = "cannot pull manifest `h/x:1`: not found at `h` (404: Not Found)";
        assert_eq!(of(404).to_string(), text);
    }
}
