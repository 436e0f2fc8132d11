//! Files of web servers: downloaded once, asked about every time, unless pinned.
//!
//! A memo keeps the `ETag`, the `Last-Modified`, the SHA-256 and the layer of each address. With
//! them the server is asked whether the file is still the same; with a checksum that is known it
//! is not asked at all.

use kiln_cache::decompress;
use kiln_graph::{Digest, HttpSource};
use kiln_registry::{FileAnswer, FileHead, FileRequest, without_credentials};
use kiln_solver::{Direction, Task, blocking};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::channel;

use crate::error::WorkerError;
use crate::sink::Channel;
use crate::snapshot::Snapshot;
use crate::sources::error::SourceError;
use crate::sources::file::{Chunks, WrittenFile};
use crate::sources::{Sources, key_of, snapshot_of, wait_for_key};

/// Chunks in flight between the connection and the disk.
const CHUNKS: usize = 32;

/// Seconds between the last change of a file and the answer of its server.
const MIN_AGE: i64 = 60;

/// What is known of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Memo {
    etag: Option<String>,
    last_modified: Option<String>,
    sha256: Digest,
    layer: Digest,
}

impl Sources {
    /// Returns a snapshot that holds one file of a web server.
    pub async fn http(&self, source: &HttpSource, task: &Task) -> Result<Snapshot, WorkerError> {
        if let Some(found) = self.pinned(source)? {
            return Ok(found);
        }
        let key = key_of("file", &[&source.url, &source.file_name]);
        let _lock = wait_for_key(&self.store, &key, &source.file_name, task).await?;
        let known = self.known(&key)?;
        // Of a file that is known to be another one nothing can be unchanged.
        let is_wanted = |memo: &Memo| source.checksum.is_none_or(|sum| sum == memo.sha256);
        let known = known.filter(is_wanted);
        let login = self.file_authorization(&source.url).await?;
        let wanted = FileRequest {
            url: source.url.clone(),
            etag: known.as_ref().and_then(|memo| memo.etag.clone()),
            last_modified: known.as_ref().and_then(|memo| memo.last_modified.clone()),
            is_pinned: source.checksum.is_some(),
            authorization: login.map(|value| value.as_bytes().to_vec()),
        };
        let answer = self.client.open_file(&wanted).await?;
        if let Some(memo) = known.filter(|memo| is_same(&answer.head, memo)) {
            task.status("unchanged");
            return Ok(snapshot_of(memo.layer));
        }
        let memo = self.download(source, answer, task).await?;
        self.note(source, &key, &memo)?;
        Ok(snapshot_of(memo.layer))
    }

    /// Returns the layer of a file whose checksum is known.
    fn pinned(&self, source: &HttpSource) -> Result<Option<Snapshot>, WorkerError> {
        let Some(checksum) = source.checksum else {
            return Ok(None);
        };
        let memo = self.store.memo(&pin_key(&checksum, &source.file_name))?;
        let layer = memo.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        self.noted_layer(layer)
    }

    /// Returns what is known of an address, if its layer is still here.
    fn known(&self, key: &Digest) -> Result<Option<Memo>, WorkerError> {
        let memo = self.store.memo(key)?;
        let memo: Option<Memo> = memo.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(memo) = memo else { return Ok(None) };
        Ok(self.store.has_layer(&memo.layer)?.then_some(memo))
    }

    fn note(&self, source: &HttpSource, key: &Digest, memo: &Memo) -> Result<(), WorkerError> {
        let bytes = serde_json::to_vec(memo).expect("a memo is plain data");
        self.store.set_memo(key, &bytes)?;
        let layer = serde_json::to_vec(&memo.layer).expect("a digest is plain data");
        let pin = pin_key(&memo.sha256, &source.file_name);
        Ok(self.store.set_memo(&pin, &layer)?)
    }

    async fn download(
        &self,
        source: &HttpSource,
        answer: FileAnswer,
        task: &Task,
    ) -> Result<Memo, WorkerError> {
        let head = answer.head.clone();
        let (sender, receiver) = channel(CHUNKS);
        let (store, name) = (self.store.clone(), source.file_name.clone());
        let (mtime, is_gzip) = (modified(&head), head.is_gzip);
        let write = blocking(move || {
            let chunks = Chunks::new(receiver);
            if !is_gzip {
                return WrittenFile::write(&store, &name, mtime, chunks);
            }
            let stream = decompress(chunks);
            let stream = stream
                .map_err(|error| SourceError::keep(name.as_str())(std::io::Error::other(error)))?;
            WrittenFile::write(&store, &name, mtime, stream)
        });
        let shown = without_credentials(&source.url);
        let progress = |done| task.transfer(&shown, Direction::Pull, done, head.length);
        let fetch = async {
            let mut sink = Channel(Some(sender));
            self.client.file(answer, &mut sink, &progress).await
        };
        let (fetched, written) = futures_util::future::join(fetch, write).await;
        // A full disk ends the download, too, and is what the user must hear of.
        let written = written?;
        fetched?;
        let sha256 = written.sha256;
        match source.checksum {
            Some(expected) if expected != sha256 => Err(SourceError::Checksum {
                url: shown,
                expected,
                actual: sha256,
            }
            .into()),
            _ => Ok(Memo {
                last_modified: validator(&head),
                etag: head.etag,
                sha256,
                layer: blocking(move || written.commit()).await?,
            }),
        }
    }
}

fn pin_key(checksum: &Digest, file_name: &str) -> Digest {
    key_of("pinned file", &[&checksum.to_string(), file_name])
}

/// Some servers send the whole file although the `ETag` is the one that was asked about.
fn is_same(head: &FileHead, memo: &Memo) -> bool {
    let strong = |etag: &&String| !etag.starts_with("W/");
    head.is_unchanged || head.etag.as_ref().filter(strong).is_some() && head.etag == memo.etag
}

/// Returns the `Last-Modified` to ask about where there is no `ETag`: one so old that a change in
/// the same second would have been seen (RFC 9110, 8.8.2.2).
fn validator(head: &FileHead) -> Option<String> {
    let modified = head
        .last_modified
        .as_ref()
        .filter(|_| head.etag.is_none())?;
    let age = http_date(head.date.as_deref()?)? - http_date(modified)?;
    (age >= MIN_AGE).then(|| modified.clone())
}

/// Returns when the file was changed, or 1970.
fn modified(head: &FileHead) -> i64 {
    let text = head.last_modified.as_deref().unwrap_or_default();
    http_date(text).unwrap_or(0)
}

/// Reads a date as HTTP sends it: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7), and the two
/// older forms.
fn http_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text
        .split([' ', '-'])
        .filter(|word| !word.is_empty())
        .collect();
    let (day, month, year, time) = match words[..] {
        [_, day, month, year, time, "GMT"] => (day, month, year, time),
        // asctime: `Sun Nov  6 08:49:37 1994`.
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months
        .find(month)
        .filter(|at| at % 3 == 0 && month.len() == 3)?
        / 3
        + 1;
    let year: i64 = match year.len() {
        // RFC 850: two digits.
        2 => year
            .parse::<i64>()
            .ok()
            .map(|year| if year >= 69 { 1900 + year } else { 2000 + year })?,
        4 => year.parse().ok()?,
        _ => return None,
    };
    let (day, month) = (day.parse::<i64>().ok()?, i64::try_from(month).ok()?);
    let parts: Vec<i64> = time
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [hour, minute, second] = parts[..] else {
        return None;
    };
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..61).contains(&second);
    if !is_time || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_have_three_forms() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            ("Sun, 06 anF 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_strong_etag_says_that_nothing_changed() {
        let digest = Digest::sha256("x");
        let memo = |etag: &str| Memo {
            etag: Some(etag.to_owned()),
            last_modified: None,
            sha256: digest,
            layer: digest,
        };
        let head = |etag: &str| FileHead {
            etag: Some(etag.to_owned()),
            ..FileHead::default()
        };
        assert!(is_same(&head("\"1\""), &memo("\"1\"")));
        assert!(!is_same(&head("\"1\""), &memo("\"2\"")));
        assert!(!is_same(&head("W/\"1\""), &memo("W/\"1\"")));
        let unchanged = FileHead {
            is_unchanged: true,
            ..FileHead::default()
        };
        assert!(is_same(&unchanged, &memo("\"1\"")));
    }
}
