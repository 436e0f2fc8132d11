//! What a build is told besides its Dockerfile, and what it gets back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_graph::{Digest, Graph, ImageConfig, Input, Network, Platform, SourceLines, VertexId};

use crate::diagnostic::{Diagnostic, Span};
use crate::lint::ContextNames;
use crate::outline::Outline;

/// How a Dockerfile is to be built.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--build-arg`; the last of a name counts.
    pub build_args: Vec<(String, String)>,
    /// `--target`; the last stage if none.
    pub target: Option<String>,
    /// What the image is for.
    pub target_platform: Platform,
    /// True if `target_platform` was asked for (`--platform`). Otherwise an image keeps the
    /// platform of its base.
    pub explicit_platform: bool,
    /// True if several platforms are built: step names then start with theirs.
    pub several_platforms: bool,
    /// What the machine that builds runs.
    pub build_platform: Platform,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--build-context`.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// `--network`: for `RUN` without its own.
    pub network: Network,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--check`: all rules are looked at, in all stages if no target is given, and findings are
    /// told beside errors.
    pub check: bool,
    /// The names of the build context, for checks that need them.
    pub context: Option<Arc<dyn ContextNames>>,
    /// `--allow`.
    pub allowed: Entitlements,
}

/// What steps may ask for only if the one who builds allows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`: `RUN --network=host`.
    pub network_host: bool,
    /// `security.insecure`: `RUN --security=insecure`.
    pub security_insecure: bool,
}

impl Options {
    /// Returns options for `platform` with nothing else set.
    pub fn for_platform(platform: Platform) -> Self {
        Self {
            build_args: Vec::new(),
            target: None,
            build_platform: platform.clone(),
            target_platform: platform,
            explicit_platform: false,
            several_platforms: false,
            labels: Vec::new(),
            named_contexts: BTreeMap::new(),
            network: Network::Default,
            no_cache: NoCache::None,
            check: false,
            context: None,
            allowed: Entitlements::default(),
        }
    }

    /// Returns true if stages that the target does not need are looked at, too.
    pub(crate) fn checks_all_stages(&self) -> bool {
        self.check && self.target.as_deref().is_none_or(str::is_empty)
    }

    /// Returns the value of a build argument.
    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        let mut args = self.build_args.iter().rev();
        args.find(|(arg, _)| arg == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The main context's name in the graph.
pub(crate) const CONTEXT: &str = "context";

/// The name that a `--build-context` called `context` has in the graph, where the main context is
/// called so. Nobody can type it: a name ends at the first `=`.
pub const NAMED_CONTEXT: &str = "context=";

/// What stands behind the name of a `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// An image, by reference.
    Image(String),
    /// A folder, whose op is `Local` with the context's name.
    Local,
}

/// What runs again although it is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCache {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// The stages of these names.
    Stages(Vec<String>),
}

/// An image that must be known before [`crate::compile()`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// The reference as written, variables expanded.
    pub reference: String,
    /// Which of the image's platforms.
    pub platform: Platform,
    /// The `FROM` or `COPY` that needs it.
    pub span: Span,
}

/// An image that was found.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// The full name with registry and tag, and the digest if the reference is pinned to one.
    pub reference: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// The image's config.
    pub config: ImageConfig,
}

/// The key of an image: the reference of its request, and the platform.
pub type ImageKey = (String, Platform);

/// The images that were found.
pub type Images = HashMap<ImageKey, ResolvedImage>;

/// A Dockerfile, ready to be evaluated.
#[derive(Debug)]
pub struct Compiled {
    /// What is done.
    pub graph: Graph,
    /// The vertex whose result is the image's root; none for an image without files.
    pub target: Input,
    /// The image's config. `rootfs`, `history` and `created` are still those of the base.
    pub image: ImageConfig,
    /// The base image, whose layers come first; none for `scratch`.
    pub base: Option<ImageKey>,
    /// What was done on top of the base, in order, inherited stages included.
    pub steps: Vec<HistoryStep>,
    /// The stages in the order of the file.
    pub stages: Vec<StageInfo>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub source_date_epoch: Option<i64>,
    /// `BUILDKIT_SANDBOX_HOSTNAME`: what steps see as their host's name.
    pub hostname: Option<String>,
    /// What is worth a warning.
    pub warnings: Vec<Diagnostic>,
    /// What the build can be given.
    pub outline: Outline,
}

/// An entry of the image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryStep {
    /// The text of the entry.
    pub created_by: String,
    /// The vertex that makes the entry's layer; none if it has no layer.
    pub layer: Option<VertexId>,
    /// Where the instruction stands.
    pub lines: SourceLines,
}

/// A stage of a compiled Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageInfo {
    /// Its name, in lower case.
    pub name: Option<String>,
    /// What it is based on, variables expanded.
    pub base: String,
    /// What its steps run on.
    pub platform: Platform,
    /// True if the target needs it.
    pub is_needed: bool,
    /// The lines of its `FROM`.
    pub lines: SourceLines,
}
