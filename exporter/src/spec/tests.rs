//! Tests of output specifications.

use super::*;

fn parse(text: &str) -> OutputSpec {
    OutputSpec::parse(text).unwrap()
}

fn error(text: &str) -> String {
    OutputSpec::parse(text).unwrap_err().to_string()
}

#[test]
fn a_bare_word_is_a_directory_and_a_dash_is_a_tar() {
    let dir = parse("out/dir");
    assert_eq!(
        (dir.kind, dir.dest),
        (OutputKind::Local, Some(PathBuf::from("out/dir")))
    );
    let tar = parse("-");
    assert_eq!((tar.kind, tar.is_stdout()), (OutputKind::Tar, true));
    // A path may hold `=`, but not start like an option.
    assert_eq!(parse("a=b").kind, OutputKind::Local);
    assert!(error("dest=out").contains("(none)"));
}

#[test]
fn options_of_an_image() {
    let spec = parse(
        r#"type=image,"name=a,localhost:5000/b:v1",push=true,compression=zstd,compression-level=9,force-compression=1,OCI-mediatypes=false"#,
    );
    let names: Vec<_> = spec.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/library/a:latest", "localhost:5000/b:v1"]);
    assert!(spec.push && spec.image.force_compression && !spec.image.oci_mediatypes);
    assert_eq!(spec.image.compression, Compression::Zstd { level: 9 });
    assert!(parse("type=registry,name=a").push);
    assert!(!parse("type=image").push);
    // The recipe that Docker's documentation gives for builds on several machines.
    let spec = parse("type=image,name=a,push-by-digest=true,name-canonical=true,push=true");
    assert!(spec.push_by_digest);
}

#[test]
fn the_level_is_checked_against_the_compression_wherever_it_stands() {
    let spec = parse("type=oci,compression-level=19,compression=zstd,dest=x");
    assert_eq!(spec.image.compression, Compression::Zstd { level: 19 });
    assert!(error("type=oci,compression-level=10").contains("0 to 9"));
    assert!(error("type=oci,compression=zstd,compression-level=23").contains("0 to 22"));
    assert!(error("type=oci,compression=estargz").contains("gzip, zstd or uncompressed"));
}

#[test]
fn media_types_by_default() {
    assert!(parse("type=oci").image.oci_mediatypes);
    assert!(parse("type=image").image.oci_mediatypes);
    assert!(!parse("type=docker").image.oci_mediatypes);
    assert!(error("type=oci,oci-mediatypes=false").contains("OCI media types"));
}

#[test]
fn annotations_keep_their_case() {
    let spec = parse("type=oci,annotation.org.X=1,annotation-index-descriptor.k=a=b");
    let keys: Vec<_> = spec
        .image
        .annotations
        .iter()
        .map(|a| (&a.key[..], &a.value[..]))
        .collect();
    assert_eq!(keys, [("org.X", "1"), ("k", "a=b")]);
    for wrong in [
        "annotation=x",
        "annotation-layer.k=v",
        "annotation[linux.k=v",
        "annotation.=v",
    ] {
        assert!(
            error(&format!("type=oci,{wrong}")).contains("annotation"),
            "{wrong}"
        );
    }
}

#[test]
fn what_is_not_known_is_refused_with_what_is() {
    assert!(error("type=ocl").contains("`ocl` is not known; known are: cacheonly, docker"));
    assert!(error("type=local,dest=x,name=y").contains("known are: type, dest"));
    assert!(error("type=oci,foo=1").contains("force-compression"));
    assert!(error("type=image,name=a,b,push=true").contains("in quotes"));
    assert!(error("type=oci,rewrite-timestamp=true").contains("not supported"));
    assert!(error("type=local,dest=x,platform-split=false").contains("not supported"));
    assert!(error("type=image,name=Upper").contains("`name`"));
    assert!(error("type=image,push=yes").contains("true or false"));
    assert!(error("\"type=oci").contains("quotes"));
}

#[test]
fn directories_need_a_place_and_files_do_not() {
    assert!(error("type=local").contains("dest=DIR"));
    assert!(error("type=oci,tar=false,dest=-").contains("dest=DIR"));
    assert!(error("").contains("dest=DIR"));
    assert!(error("type=tar,dest=").contains("a path"));
    assert!(parse("type=tar").is_stdout() && parse("type=oci").is_stdout());
    assert_eq!(parse("type=docker").dest, None);
    assert_eq!(parse("type=cacheonly").kind, OutputKind::CacheOnly);
}
