//! The rules: BuildKit's under its names, texts and addresses, and kiln's own.
//!
//! Only what a rule is called and says in general. What breaks one is found in the modules beside.

/// A rule that a Dockerfile can break without being wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, as `# check=skip=` takes it.
    pub name: &'static str,
    /// What the rule wants, in general.
    pub description: &'static str,
    /// Where more is to be read.
    pub url: Option<&'static str>,
    /// Whose rule it is, and when it is looked at.
    pub kind: RuleKind,
}

/// Whose rule it is, and when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// BuildKit's: counts for the exit status and for `error=true`.
    BuildKit,
    /// BuildKit's, and only looked at when `experimental=` asks for it.
    Experimental,
    /// kiln's own, told in builds as well: its signal is strong.
    Own,
    /// kiln's own, told by `--check` only.
    OwnInChecks,
}

impl Rule {
    /// Returns true for kiln's own rules, which are never more than a remark.
    pub fn is_own(&self) -> bool {
        matches!(self.kind, RuleKind::Own | RuleKind::OwnInChecks)
    }
}

macro_rules! buildkit {
    ($id:ident, $kind:ident, $name:literal, $page:literal, $description:expr) => {
        pub(crate) static $id: Rule = Rule {
            name: $name,
            description: $description,
            url: Some(concat!(
                "https://docs.docker.com/go/dockerfile/rule/",
                $page,
                "/"
            )),
            kind: RuleKind::$kind,
        };
    };
}

macro_rules! own {
    ($id:ident, $kind:ident, $name:literal, $description:expr) => {
        pub(crate) static $id: Rule = Rule {
            name: $name,
            description: $description,
            url: None,
            kind: RuleKind::$kind,
        };
    };
}

buildkit!(
    STAGE_NAME_CASING,
    BuildKit,
    "StageNameCasing",
    "stage-name-casing",
    "Stage names should be lowercase"
);
buildkit!(
    FROM_AS_CASING,
    BuildKit,
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword"
);
buildkit!(
    NO_EMPTY_CONTINUATION,
    BuildKit,
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release"
);
buildkit!(
    CONSISTENT_INSTRUCTION_CASING,
    BuildKit,
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)"
);
buildkit!(
    DUPLICATE_STAGE_NAME,
    BuildKit,
    "DuplicateStageName",
    "duplicate-stage-name",
    "Stage names should be unique"
);
buildkit!(
    RESERVED_STAGE_NAME,
    BuildKit,
    "ReservedStageName",
    "reserved-stage-name",
    "Reserved words should not be used as stage names"
);
buildkit!(
    JSON_ARGS_RECOMMENDED,
    BuildKit,
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS \
     signals"
);
buildkit!(
    MAINTAINER_DEPRECATED,
    BuildKit,
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
);
buildkit!(
    UNDEFINED_ARG_IN_FROM,
    BuildKit,
    "UndefinedArgInFrom",
    "undefined-arg-in-from",
    "FROM command must use declared ARGs"
);
buildkit!(
    WORKDIR_RELATIVE_PATH,
    BuildKit,
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected \
     results if the base image changes"
);
buildkit!(
    UNDEFINED_VAR,
    BuildKit,
    "UndefinedVar",
    "undefined-var",
    "Variables should be defined before their use"
);
buildkit!(
    MULTIPLE_INSTRUCTIONS_DISALLOWED,
    BuildKit,
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage"
);
buildkit!(
    LEGACY_KEY_VALUE_FORMAT,
    BuildKit,
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used"
);
pub(crate) static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    url: None,
    kind: RuleKind::BuildKit,
};
buildkit!(
    REDUNDANT_TARGET_PLATFORM,
    BuildKit,
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default \
     behavior"
);
buildkit!(
    SECRETS_USED_IN_ARG_OR_ENV,
    BuildKit,
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands"
);
buildkit!(
    INVALID_DEFAULT_ARG_IN_FROM,
    BuildKit,
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name"
);
buildkit!(
    FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    BuildKit,
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value"
);
buildkit!(
    COPY_IGNORED_FILE,
    BuildKit,
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore"
);
buildkit!(
    INVALID_DEFINITION_DESCRIPTION,
    Experimental,
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> \
     <description>`. If this is not intended to be a description comment, add an empty line or \
     comment between the instruction and the comment."
);
buildkit!(
    EXPOSE_PROTO_CASING,
    BuildKit,
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase"
);
buildkit!(
    EXPOSE_INVALID_FORMAT,
    BuildKit,
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become \
     an error in a future release"
);
own!(
    PACKAGE_CACHE_KEPT,
    OwnInChecks,
    "PackageCacheKept",
    "Caches of package managers should not stay in a layer"
);
own!(
    SECRET_FILE_COPIED,
    Own,
    "SecretFileCopied",
    "Files that look like secrets should not be copied into an image"
);
own!(
    TYPOGRAPHIC_QUOTES,
    Own,
    "TypographicQuotes",
    "The JSON form needs straight quotes; with typographic ones it is taken for the shell form"
);
own!(
    CACHE_DEFEATING_COPY,
    OwnInChecks,
    "CacheDefeatingCopy",
    "Dependencies should be installed before the rest of the context is copied"
);

/// All rules, in the order of the documentation.
pub static RULES: [&Rule; 26] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &INVALID_BASE_IMAGE_PLATFORM,
    &REDUNDANT_TARGET_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &INVALID_DEFINITION_DESCRIPTION,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
    &PACKAGE_CACHE_KEPT,
    &SECRET_FILE_COPIED,
    &TYPOGRAPHIC_QUOTES,
    &CACHE_DEFEATING_COPY,
];
