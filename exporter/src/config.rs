//! JSON as Go writes it, so that tools and people see what BuildKit would have made.
//!
//! BuildKit writes the top level of an image config with its keys sorted, the sections in the
//! order of Go's structs, maps sorted, and `<`, `>`, `&` escaped.

use kiln_graph::{Digest, HistoryEntry, ImageConfig, Platform};
use serde::Serialize;
use serde_json::{Map, Value};

/// Says in the history which layers no instruction accounts for.
const COMMENT: &str = "kiln.exporter.image.v0";

/// Returns the bytes of an image config.
pub(crate) fn config_bytes(
    config: &ImageConfig,
    platform: &Platform,
    diff_ids: Vec<Digest>,
) -> serde_json::Result<Vec<u8>> {
    let mut config = config.clone();
    if config.os.is_empty() || config.architecture.is_empty() {
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
    }
    fit_history(
        &mut config.history,
        diff_ids.len(),
        config.created.as_deref(),
    );
    config.rootfs.diff_ids = diff_ids;
    let section = &mut config.config;
    for map in [
        &mut section.exposed_ports,
        &mut section.volumes,
        &mut section.labels,
    ] {
        map.sort_keys();
    }
    let mut top = match serde_json::to_value(&config)? {
        Value::Object(top) => top,
        _ => Map::new(),
    };
    top.sort_keys();
    Ok(as_go(&serde_json::to_string(&top)?).into_bytes())
}

/// Returns a manifest or index, indented by two spaces.
pub(crate) fn manifest_bytes(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    Ok(as_go(&serde_json::to_string_pretty(value)?).into_bytes())
}

/// Escapes what Go escapes; outside of strings these characters do not occur in JSON.
fn as_go(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}

/// Makes the history account for exactly `n_layers` layers, as readers of images expect.
fn fit_history(history: &mut Vec<HistoryEntry>, n_layers: usize, created: Option<&str>) {
    let mut n_told = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        entry.empty_layer = n_told == n_layers;
        n_told += usize::from(!entry.empty_layer);
    }
    let untold = HistoryEntry {
        created: created.map(str::to_owned),
        comment: Some(COMMENT.to_owned()),
        ..HistoryEntry::default()
    };
    history.extend(std::iter::repeat_n(untold, n_layers - n_told));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(text: &str, empty_layer: bool) -> HistoryEntry {
        let created_by = Some(text.to_owned());
        HistoryEntry {
            created_by,
            empty_layer,
            ..HistoryEntry::default()
        }
    }

    #[test]
    fn config_is_written_as_buildkit_writes_it() {
        let mut config: ImageConfig = serde_json::from_str(
            r#"{"os":"linux","architecture":"arm64","docker_version":"1","config":{"User":"u",
            "Env":["A=<b>&c"],"Labels":{"z":"1","a":"2"}},"created":"2024-01-02T03:04:05Z"}"#,
        )
        .unwrap();
        config.history = vec![step("RUN a", false), step("CMD", true)];
        let bytes = config_bytes(
            &config,
            &Platform::linux("amd64"),
            vec![Digest::sha256("x")],
        );
        let expected = concat!(
            r#"{"architecture":"arm64","config":{"User":"u","Env":["A=\u003cb\u003e\u0026c"],"#,
            r#""Labels":{"a":"2","z":"1"}},"created":"2024-01-02T03:04:05Z","docker_version":"1","#,
            r#""history":[{"created_by":"RUN a"},{"created_by":"CMD","empty_layer":true}],"#,
            r#""os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:"#,
            r#"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"]}}"#,
        );
        assert_eq!(String::from_utf8(bytes.unwrap()).unwrap(), expected);
    }

    #[test]
    fn history_accounts_for_every_layer() {
        for (told, n_layers) in [(0, 2), (3, 1), (2, 2)] {
            let mut history = vec![step("RUN", false); told];
            fit_history(&mut history, n_layers, None);
            let n_filled = history.iter().filter(|entry| !entry.empty_layer).count();
            assert_eq!(n_filled, n_layers);
        }
    }
}
