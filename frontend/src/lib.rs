//! Dockerfile text to diagnostics, a graph and an image config; reads nothing by itself.
//!
//! ```text
//!   text ──parse──> Dockerfile ──requirements──> images to resolve (the caller does that, and
//!                       │                        asks again: their triggers can need more)
//!                       └────────compile(images)──> graph, image config, history
//!
//!   lines        physical lines to logical lines with a way back to the file
//!   words        a logical line to a name, flags and words
//!   parse        logical lines to typed instructions
//!   plan         what each stage stands on, and which stages count
//!   refusals     what kiln cannot build or nobody allowed, told before images are asked for
//!   unused       warnings about options without effect
//!   lint         rules that a Dockerfile can break without being wrong
//!   outline      what a build can be given: arguments, secrets, agents
//!   epoch        where `SOURCE_DATE_EPOCH` comes from
//!   compile      stages to vertices, config and history
//!   expand       quotes, escapes and variables of a word
//! ```
//!
//! The crate is pure: no file, no network, no clock, no environment. What is wrong with a
//! Dockerfile is data ([`Diagnostic`]) with a place in the text; [`render()`] makes text of it,
//! [`to_json()`] JSON.
//! The language is that of BuildKit's frontend; where that is odd, this is odd in the same way.
//! What kiln cannot build is refused in a sentence, never left out in silence.
//!
//! Invariant: every vertex that makes files makes exactly one layer on top of its input 0, so an
//! image's layers are those of its base and one for each of [`Compiled::steps`] that has a layer.

mod compile;
mod diagnostic;
mod directives;
mod env;
mod epoch;
mod expand;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod git_url;
mod heredoc;
mod instruction;
mod json;
mod lines;
mod lint;
mod options;
mod outline;
mod parse;
mod paths;
mod plan;
mod quote;
mod reference;
mod refusals;
mod render;
mod suggest;
mod unused;
mod words;

pub use crate::compile::compile;
pub use crate::diagnostic::{Diagnostic, Severity, Span};
pub use crate::epoch::{EpochSource, epoch_source};
pub use crate::git_url::{GitUrl, GitUrlError, git_url};
pub use crate::instruction::{Dockerfile, StageOutline};
pub use crate::json::to_json;
pub use crate::lint::rules::{RULES, Rule, RuleKind};
pub use crate::lint::{ContextNames, findings};
pub use crate::options::{
    Compiled, Entitlements, HistoryStep, ImageKey, ImageRequest, Images, NAMED_CONTEXT,
    NamedContext, NoCache, Options, ResolvedImage, StageInfo,
};
pub use crate::outline::{Outline, OutlineArg, OutlineMount};
pub use crate::parse::{parse, parse_with_findings};
pub use crate::plan::requirements;
pub use crate::render::render;
pub use crate::suggest::{help_for_request, nearest_platform};
