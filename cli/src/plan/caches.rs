//! `--cache-from` and `--cache-to`: what was typed, as buildx types it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use kiln_exporter::{Compression, csv_fields};
use kiln_registry::{Client, Reference};
use kiln_remote::{Bucket, BucketSettings, Expiry, Place};

use crate::args::{BuildArgs, switch};
use crate::duration::duration;
use crate::environment::Environment;
use crate::report::Failure;
use crate::size::size;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachePlace {
    /// A repository with a tag.
    Registry(Reference),
    /// A folder.
    Folder(PathBuf),
    /// A bucket of an S3-compatible server.
    Bucket(BucketArgs),
}

/// What is said of a bucket. The keys are shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BucketArgs {
    endpoint: String,
    path_style: bool,
    bucket: String,
    region: String,
    prefix: String,
    keys: Option<(String, String, Option<String>)>,
}

impl std::fmt::Debug for BucketArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = (&self.endpoint, &self.bucket, &self.prefix);
        f.debug_tuple("BucketArgs").field(&shown).finish()
    }
}

/// A cache that the build writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheTo {
    pub(crate) place: CachePlace,
    /// All that ran, not only what is in the image.
    pub(crate) all_stages: bool,
    /// A failure is a warning.
    pub(crate) ignore_error: bool,
    /// As the image is compressed, if nothing is said.
    pub(crate) compression: Option<Compression>,
    pub(crate) expiry: Expiry,
}

/// The caches of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CachePlan {
    pub(crate) from: Vec<CachePlace>,
    pub(crate) to: Vec<CacheTo>,
    /// The image says of its layers what made them.
    pub(crate) inline: bool,
}

/// The options of one cache, each with what was said of it.
struct Given<'a> {
    /// `--cache-from` or `--cache-to`.
    flag: &'static str,
    kind: String,
    options: BTreeMap<String, String>,
    env: &'a Environment,
}

/// What both flags take, by type; the last are those of `--cache-to`.
const KNOWN: &[(&str, &[&str], &[&str])] = &[
    ("inline", &[], &[]),
    ("registry", &["ref"], &["image-manifest", "oci-mediatypes"]),
    (
        "local",
        &["src", "dest"],
        &["image-manifest", "oci-mediatypes"],
    ),
    (
        "s3",
        &[
            "access_key_id",
            "bucket",
            "endpoint_url",
            "name",
            "prefix",
            "region",
            "secret_access_key",
            "session_token",
            "use_path_style",
        ],
        &["touch_refresh", "upload_parallelism"],
    ),
];

/// What `--cache-to` takes of any type.
const EXPORT: &[&str] = &[
    "compression",
    "compression-level",
    "force-compression",
    "ignore-error",
    "max-age",
    "max-size",
    "mode",
];

/// Reads all caches of a command line.
pub(super) fn caches(
    args: &BuildArgs,
    build_args: &[(String, String)],
    env: &Environment,
) -> Result<CachePlan, Failure> {
    let read = |text, flag| Given::read(text, flag, env);
    let mut plan = CachePlan::default();
    let inline = build_args.iter().rev();
    let mut inline = inline.filter(|(name, _)| name == "BUILDKIT_INLINE_CACHE");
    plan.inline = inline
        .next()
        .is_some_and(|(_, value)| switch(value).unwrap_or(false));
    for text in &args.cache_from {
        plan.from.push(read(text, "--cache-from")?.place()?);
    }
    for text in &args.cache_to {
        let given = read(text, "--cache-to")?;
        match given.kind == "inline" {
            true => plan.inline = true,
            false => plan.to.push(given.export()?),
        }
    }
    Ok(plan)
}

impl<'a> Given<'a> {
    fn read(text: &str, flag: &'static str, env: &'a Environment) -> Result<Self, Failure> {
        // What was typed may hold keys, and is not shown.
        let wrong = |why: &str| Failure::usage(format!("{flag}: {why}"));
        let fields = csv_fields(text).ok_or_else(|| wrong("a quote is not closed"))?;
        let mut options = BTreeMap::new();
        for (at, field) in fields.iter().enumerate() {
            match field.split_once('=') {
                Some((key, value)) => {
                    options.insert(key.trim().to_ascii_lowercase(), value.to_owned());
                }
                // As docker: a name alone is that of an image.
                None if fields.len() == 1 && !text.is_empty() => {
                    options.insert("type".to_owned(), "registry".to_owned());
                    options.insert("ref".to_owned(), field.clone());
                }
                None => {
                    let why = format!("field {} of {} is not NAME=VALUE", at + 1, fields.len());
                    return Err(wrong(&why));
                }
            }
        }
        let kind = options.remove("type");
        let kind = kind.ok_or_else(|| wrong("it needs type=registry, local, s3 or inline"))?;
        let given = Self {
            flag,
            kind,
            options,
            env,
        };
        given.check()?;
        Ok(given)
    }

    fn wrong(&self, why: impl AsRef<str>) -> Failure {
        let Self { flag, kind, .. } = self;
        Failure::usage(format!("{flag} type={kind}: {}", why.as_ref()))
    }

    fn check(&self) -> Result<(), Failure> {
        let Some((_, both, export)) = KNOWN.iter().find(|(kind, ..)| *kind == self.kind) else {
            let known: Vec<&str> = KNOWN.iter().map(|(kind, ..)| *kind).collect();
            let why = format!(
                "kiln has no cache of this type; it has {}",
                known.join(", ")
            );
            return Err(self.wrong(why));
        };
        let is_export = self.flag == "--cache-to";
        let export = [export, EXPORT].concat();
        for key in self.options.keys().map(String::as_str) {
            let is_known = both.contains(&key) || is_export && export.contains(&key);
            if !is_known {
                let mut known = both.to_vec();
                known.extend(export.iter().filter(|_| is_export));
                let known = known.join(", ");
                return Err(self.wrong(format!("it has no option `{key}`; it has {known}")));
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&str> {
        let value = self.options.get(key).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    fn need(&self, key: &str) -> Result<&str, Failure> {
        self.get(key)
            .ok_or_else(|| self.wrong(format!("it needs `{key}=`")))
    }

    /// Reads an option with a reader that says what it expects.
    fn parse<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.get(key) else {
            return Ok(None);
        };
        let parsed = parse(text).map_err(|why| self.wrong(format!("{key}={text}: {why}")))?;
        Ok(Some(parsed))
    }

    fn place(&self) -> Result<CachePlace, Failure> {
        match self.kind.as_str() {
            "inline" => Err(self.wrong("an image is named with type=registry,ref=NAME")),
            "registry" => {
                let name = self.need("ref")?;
                let wrong = |error| {
                    let context = format!("{} ref={name}", self.flag);
                    Failure::user(anyhow::Error::new(error).context(context))
                };
                let reference: Reference = name.parse().map_err(wrong)?;
                if reference.digest().is_some() {
                    return Err(self.wrong("a cache has a tag, not a digest"));
                }
                Ok(CachePlace::Registry(reference))
            }
            "local" => {
                let usual = match self.flag {
                    "--cache-to" => "dest",
                    _ => "src",
                };
                Ok(CachePlace::Folder(self.need(usual)?.into()))
            }
            _ => self.bucket().map(CachePlace::Bucket),
        }
    }

    /// Returns an option, or what the environment has for it.
    fn or_env(&self, key: &str, variable: &str) -> Option<String> {
        let value = self.get(key).or_else(|| self.env.variable(variable));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn bucket(&self) -> Result<BucketArgs, Failure> {
        let bucket = self.or_env("bucket", "AWS_BUCKET");
        let bucket = bucket.ok_or_else(|| self.wrong("it needs `bucket=`"))?;
        let region = self.or_env("region", "AWS_REGION");
        let endpoint = self.get("endpoint_url").map(str::to_owned);
        let region = match (region, &endpoint) {
            (Some(region), _) => region,
            // Servers of other makers have one region.
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => return Err(self.wrong("it needs `region=`")),
        };
        let is_elsewhere = endpoint.is_some();
        let path_style = self.parse("use_path_style", switch)?;
        let key = self.or_env("access_key_id", "AWS_ACCESS_KEY_ID");
        let secret = self.or_env("secret_access_key", "AWS_SECRET_ACCESS_KEY");
        let token = self.or_env("session_token", "AWS_SESSION_TOKEN");
        let keys = match (key, secret) {
            (Some(key), Some(secret)) => Some((key, secret, token)),
            (None, None) => None,
            _ => return Err(self.wrong("it needs access_key_id and secret_access_key, or neither")),
        };
        let prefix = self.get("prefix").unwrap_or_default();
        let name = self.get("name").map(|name| format!("{name}/"));
        Ok(BucketArgs {
            endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
            path_style: path_style.unwrap_or(is_elsewhere),
            bucket,
            region,
            prefix: format!("{prefix}{}", name.unwrap_or_default()),
            keys,
        })
    }

    fn export(&self) -> Result<CacheTo, Failure> {
        let mode = |text: &str| match text {
            "min" => Ok(false),
            "max" => Ok(true),
            _ => Err("expected min or max".to_owned()),
        };
        let level = |text: &str| {
            text.parse::<u8>()
                .map_err(|_| "expected a number".to_owned())
        };
        let level = self.parse("compression-level", level)?;
        let named = |text: &str| Compression::named(text, level).map_err(|error| error.to_string());
        let compression = match (self.parse("compression", named)?, level) {
            (None, Some(_)) => return Err(self.wrong("compression-level needs compression")),
            (compression, _) => compression,
        };
        // What it asks for is so in any case: kiln's caches hold layers as kiln compresses them.
        self.parse("force-compression", switch)?;
        Ok(CacheTo {
            place: self.place()?,
            all_stages: self.parse("mode", mode)?.unwrap_or(false),
            ignore_error: self.parse("ignore-error", switch)?.unwrap_or(false),
            compression,
            expiry: Expiry {
                max_age: self.parse("max-age", duration)?,
                max_size: self.parse("max-size", size)?,
            },
        })
    }
}

impl CachePlace {
    /// Returns the place, reached with the registries' client.
    pub(crate) fn open(&self, client: &Client) -> Result<Place, Failure> {
        match self {
            Self::Registry(name) => Ok(Place::registry(client.clone(), name.clone())),
            Self::Folder(dir) => Ok(Place::folder(dir)),
            Self::Bucket(args) => {
                let endpoint = args.endpoint.parse().map_err(|error| {
                    let name = kiln_graph::redacted(&args.endpoint);
                    Failure::user(anyhow!("endpoint_url `{name}` is no address: {error}"))
                })?;
                let settings = BucketSettings {
                    endpoint,
                    path_style: args.path_style,
                    bucket: args.bucket.clone(),
                    region: args.region.clone(),
                    prefix: args.prefix.clone(),
                    keys: args.keys.clone(),
                };
                let bucket = Bucket::new(client, settings).map_err(Failure::user)?;
                Ok(Place::bucket(bucket))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn to(text: &str) -> Result<CacheTo, Failure> {
        Given::read(text, "--cache-to", &Environment::default())?.export()
    }

    fn from(text: &str) -> Result<CachePlace, Failure> {
        Given::read(text, "--cache-from", &Environment::default())?.place()
    }

    #[test]
    fn caches_are_read_as_buildx_reads_them() {
        let app = CachePlace::Registry("reg.example/app:cache".parse().unwrap());
        assert_eq!(from("reg.example/app:cache").unwrap(), app);
        assert_eq!(
            from("type=registry,ref=reg.example/app:cache").unwrap(),
            app
        );
        assert_eq!(
            from("type=local,src=d").unwrap(),
            CachePlace::Folder("d".into())
        );
        let export = to("type=local,dest=d,mode=max,compression=zstd,ignore-error=true").unwrap();
        assert!(export.all_stages && export.ignore_error);
        assert_eq!(export.compression, Some(Compression::zstd()));
        let export = to("type=registry,ref=a/b,max-age=24h,max-size=1kB").unwrap();
        let max_age = Some(Duration::from_secs(24 * 3600));
        assert_eq!(export.expiry.max_age, max_age);
        assert_eq!(export.expiry.max_size, Some(1024));
        assert!(!export.all_stages && !export.ignore_error);
    }

    #[test]
    fn buckets_take_what_is_missing_from_the_environment() {
        let env = Environment::with_variables(&[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "sesame"),
            ("AWS_REGION", "eu-west-1"),
        ]);
        let text = "type=s3,bucket=b,prefix=p/,name=app";
        let given = Given::read(text, "--cache-from", &env).unwrap();
        let CachePlace::Bucket(args) = given.place().unwrap() else {
            panic!("it is a bucket");
        };
        assert_eq!(args.endpoint, "https://s3.eu-west-1.amazonaws.com");
        assert_eq!((args.prefix.as_str(), args.path_style), ("p/app/", false));
        assert_eq!(args.keys.clone().unwrap().1, "sesame");
        assert!(!format!("{args:?}").contains("sesame"));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, expected) in [
            ("type=gha", "it has inline, registry, local, s3"),
            ("mode=max", "it needs type="),
            ("type=local,src=x", "it needs `dest=`"),
            ("type=local,dest=x,ref=y", "it has no option `ref`"),
            ("type=registry", "it needs `ref=`"),
            ("type=registry,ref=a,mode=all", "expected min or max"),
            ("type=registry,ref=a,compression=lz4", "gzip, zstd"),
            ("type=registry,ref=a,max-age=soon", "max-age=soon"),
            ("type=s3,bucket=b", "it needs `region=`"),
            ("type=s3,bucket=b,region=r,access_key_id=x", "or neither"),
            ("type=local,dest", "is not NAME=VALUE"),
        ] {
            let failure = to(text).unwrap_err().render();
            assert!(failure.contains(expected), "{text}: {failure}");
        }
        let failure = from("type=local,src=x,mode=max").unwrap_err().render();
        assert!(failure.contains("it has no option `mode`"), "{failure}");
    }
}
