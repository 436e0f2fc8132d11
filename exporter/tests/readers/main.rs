//! Other programs read what the exporter writes: skopeo, umoci, GNU tar, Docker's registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use kiln_cache::{Entry, Layer, Store};
use kiln_exporter::{
    ArchiveFormat, Bundle, Compression, Destination, ExportError, ImageLayer, ImageOptions,
    OutputKind, OutputSpec, Progress, export_archive, export_layout, export_tar, layer_blob,
    missing_blobs, prepare_image, prepare_layer, push_bundle, push_layer,
};
use kiln_graph::{Digest, MediaKind};
use kiln_registry::{Client, Config, Pushed, Reference};
use support::{content, image, layer, require_program, run, try_run};

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store")).unwrap()
}

fn options(compression: Compression) -> ImageOptions {
    ImageOptions {
        compression,
        ..OutputSpec::empty(OutputKind::Oci).image
    }
}

fn bundle(store: &Store, architectures: &[&str], options: &ImageOptions) -> Bundle {
    let prepare = |a: &&str| prepare_image(store, &image(store, a), options).unwrap();
    Bundle::new(architectures.iter().map(prepare).collect(), options).unwrap()
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn check_unpacked(root: &Path) {
    assert_eq!(
        fs::read_to_string(root.join("d/y")).unwrap(),
        content("lower", "d/y")
    );
    assert_eq!(
        fs::read_to_string(root.join("h")).unwrap(),
        content("lower", "d/y")
    );
    assert_eq!(
        fs::read_to_string(root.join("d/z")).unwrap(),
        content("upper", "d/z")
    );
    assert_eq!(
        fs::read_to_string(root.join("o/new")).unwrap(),
        content("upper", "o/new")
    );
    assert_eq!(fs::read_link(root.join("l")).unwrap(), Path::new("d/x"));
    for gone in ["d/x", "keep", "o/old", "o/.wh..wh..opq", ".wh.keep"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
}

#[test]
fn an_oci_archive_is_inspected_copied_and_unpacked() {
    if !require_program("skopeo") || !require_program("umoci") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for compression in [Compression::None, Compression::gzip(), Compression::zstd()] {
        let bundle = bundle(&store, &["amd64"], &options(compression));
        let archive = dir.path().join("a.tar");
        let to = Destination::Path(&archive);
        export_archive(&store, &bundle, &[name("app:v1")], ArchiveFormat::Oci, to).unwrap();
        let found = run(dir.path(), "skopeo inspect oci-archive:a.tar:v1");
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["Digest"], bundle.root().digest.to_string());
        assert_eq!(found["Created"], "2024-05-06T07:08:09Z");
        let copied = format!("copy-{}", compression.format());
        run(
            dir.path(),
            &format!("skopeo copy oci-archive:a.tar:v1 dir:{copied}"),
        );
        // umoci 0.4 does not read zstd.
        if compression != Compression::zstd() {
            let to = format!("layout-{copied}");
            run(
                dir.path(),
                &format!("skopeo copy oci-archive:a.tar:v1 oci:{to}:v1"),
            );
            run(
                dir.path(),
                &format!("umoci unpack --rootless --image {to}:v1 un-{copied}"),
            );
            check_unpacked(&dir.path().join(format!("un-{copied}/rootfs")));
        }
    }
}

#[test]
fn an_archive_is_the_same_whenever_and_wherever_it_is_made() {
    let mut made = Vec::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let bundle = bundle(&store, &["arm64", "amd64"], &options(Compression::gzip()));
        let mut out = Vec::new();
        let to = Destination::Stream(&mut out);
        export_archive(&store, &bundle, &[name("app")], ArchiveFormat::Oci, to).unwrap();
        made.push(out);
    }
    assert!(made[0] == made[1]);
}

#[test]
fn a_layout_keeps_images_of_other_names() {
    if !require_program("umoci") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, layout) = (store(dir.path()), dir.path().join("layout"));
    let options = options(Compression::gzip());
    let one = bundle(&store, &["amd64"], &options);
    let two = bundle(&store, &["arm64"], &options);
    let export = |bundle, tag| {
        export_layout(&store, bundle, &[name(tag)], ArchiveFormat::Oci, &layout).unwrap();
    };
    export(&one, "app:one");
    export(&one, "app:two");
    export(&two, "app:two");
    let tags = run(dir.path(), "umoci list --layout layout");
    assert_eq!(tags.lines().collect::<Vec<_>>(), ["one", "two"]);
    run(dir.path(), "umoci unpack --rootless --image layout:one un");
    check_unpacked(&dir.path().join("un/rootfs"));
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    assert!(index.contains(&two.root().digest.to_string()), "{index}");
    assert!(index.contains("docker.io/library/app:two"), "{index}");
}

#[test]
fn a_docker_archive_has_tags_and_only_one_platform() {
    if !require_program("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let options = OutputSpec::empty(OutputKind::Docker).image;
    let one = bundle(&store, &["amd64"], &options);
    let names = [name("app:v1"), name("localhost:5000/app:v2")];
    let archive = dir.path().join("d.tar");
    let to = Destination::Path(&archive);
    export_archive(&store, &one, &names, ArchiveFormat::Docker, to).unwrap();
    run(
        dir.path(),
        "skopeo inspect docker-archive:d.tar:localhost:5000/app:v2",
    );
    run(
        dir.path(),
        "skopeo copy docker-archive:d.tar:app:v1 dir:copied",
    );
    let manifest = run(dir.path(), "tar xOf d.tar manifest.json");
    assert!(
        manifest.contains(r#""RepoTags":["app:v1","localhost:5000/app:v2"]"#),
        "{manifest}"
    );
    let two = bundle(&store, &["amd64", "arm64"], &options);
    let to = Destination::Path(&archive);
    let error = export_archive(&store, &two, &names, ArchiveFormat::Docker, to).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not currently support exporting manifest lists")
    );
    assert!(
        run(dir.path(), "tar tf d.tar").contains("manifest.json"),
        "the old one is still there"
    );
}

#[test]
fn an_index_of_several_platforms_is_copied_whole() {
    if !require_program("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let bundle = bundle(&store, &["amd64", "arm64"], &options(Compression::gzip()));
    let archive = dir.path().join("a.tar");
    let to = Destination::Path(&archive);
    export_archive(&store, &bundle, &[name("app")], ArchiveFormat::Oci, to).unwrap();
    let raw = run(dir.path(), "skopeo inspect --raw oci-archive:a.tar:latest");
    assert_eq!(Digest::sha256(raw), bundle.root().digest);
    run(
        dir.path(),
        "skopeo copy --all oci-archive:a.tar:latest dir:copied",
    );
}

#[test]
fn a_merged_tree_is_a_plain_archive() {
    if !require_program("tar") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let lower = layer(&store, "lower", "d/ d/y h=d/y");
    let upper = layer(&store, "upper", "d/ d/z");
    let mut entries: Vec<(Entry, &Layer)> = Vec::new();
    entries.extend(
        lower
            .list
            .entries()
            .iter()
            .map(|entry| (entry.clone(), &lower)),
    );
    entries.insert(2, (upper.list.entries()[1].clone(), &upper));
    entries[1].0.uid = 1234;
    entries[3].0.uid = 1234;
    let archive = dir.path().join("t.tar");
    export_tar(&entries, Destination::Path(&archive)).unwrap();
    assert_eq!(run(dir.path(), "tar tf t.tar"), "d/\nd/y\nd/z\nh\n");
    assert!(run(dir.path(), "tar tvf t.tar").contains("1234/0"));
    assert_eq!(
        run(dir.path(), "tar xOf t.tar d/z"),
        content("upper", "d/z")
    );
    entries.push((Entry::whiteout(b"x"), &upper));
    assert!(export_tar(&entries, Destination::Path(&archive)).is_err());
    assert!(run(dir.path(), "tar tf t.tar").ends_with("h\n"));
}

#[test]
fn a_layer_is_compressed_once_and_recompressed_when_forced() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let built = layer(&store, "one", "f");
    let gzip = layer_blob(&store, &built, Compression::gzip()).unwrap();
    fs::remove_file(built.fs_dir().join("f")).unwrap();
    assert_eq!(
        layer_blob(&store, &built, Compression::gzip()).unwrap(),
        gzip,
        "remembered"
    );
    let error = layer_blob(&store, &built, Compression::zstd()).unwrap_err();
    assert!(matches!(error, ExportError::Changed { .. }), "{error}");

    let made = prepare_layer(
        &store,
        &ImageLayer::Built(built),
        &options(Compression::gzip()),
    );
    let (descriptor, diff_id) = made.map(|made| (made.descriptor, made.diff_id)).unwrap();
    let base = |descriptor, diff_id| ImageLayer::Base {
        descriptor,
        diff_id,
        mount_from: None,
    };
    let layer = base(descriptor.clone(), diff_id);
    let mut options = options(Compression::zstd());
    assert_eq!(
        prepare_layer(&store, &layer, &options).unwrap().descriptor,
        descriptor
    );
    options.oci_mediatypes = false;
    let docker = prepare_layer(&store, &layer, &options).unwrap().descriptor;
    assert!(docker.digest == descriptor.digest && docker.media_type.contains("docker"));
    options.force_compression = true;
    let forced = prepare_layer(&store, &layer, &options).unwrap();
    assert_eq!(
        MediaKind::of(&forced.descriptor.media_type),
        Some(MediaKind::LayerZstd)
    );
    assert!(forced.diff_id == diff_id && forced.descriptor.digest != descriptor.digest);

    let wrong = base(descriptor.clone(), Digest::sha256("another tar"));
    let error = prepare_layer(&store, &wrong, &options).unwrap_err();
    assert!(matches!(error, ExportError::Changed { .. }), "{error}");
    let mut absent = descriptor;
    absent.digest = Digest::sha256("absent");
    let absent = [base(absent, Digest::sha256("x"))];
    assert_eq!(missing_blobs(&store, &absent, &options).unwrap().len(), 1);
    assert!(matches!(
        prepare_layer(&store, &absent[0], &options),
        Err(ExportError::Missing { .. })
    ));
}

#[tokio::test]
async fn an_image_is_pushed_and_what_is_there_is_not_sent_again() {
    if !require_program("docker-registry") || !require_program("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = support::Registry::start(dir.path());
    let store = store(dir.path());
    let client = Client::new(Config::default()).unwrap();
    let options = options(Compression::gzip());
    let both = bundle(&store, &["amd64", "arm64"], &options);
    let names = ["a:v1", "a:v2", "b:v1"].map(|n| name(&format!("{}/{n}", registry.host)));
    let quiet = Progress::silent();
    let digest = push_bundle(&client, &store, &both, &names, false, &quiet)
        .await
        .unwrap();
    for name in &names {
        let line = format!("skopeo inspect --raw --tls-verify=false docker://{name}");
        assert_eq!(Digest::sha256(run(dir.path(), &line)), digest);
    }
    let line = format!(
        "skopeo copy --all --src-tls-verify=false docker://{} dir:c",
        names[1]
    );
    run(dir.path(), &line);

    // A base layer that this machine never pulled is mounted, or has to be pulled.
    let empty = Store::open(&dir.path().join("empty")).unwrap();
    let mut layer = both.images()[0].layers[0].clone();
    let target = name(&format!("{}/c:v1", registry.host));
    let stranger = Client::new(Config::default()).unwrap();
    let refused = push_layer(&stranger, &empty, &target, &layer, &quiet)
        .await
        .unwrap_err();
    assert!(matches!(refused, ExportError::Missing { .. }), "{refused}");
    layer.mount_from = Some(names[0].clone());
    let pushed = push_layer(&stranger, &empty, &target, &layer, &quiet)
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Mounted);
    let pushed = push_layer(&client, &empty, &target, &layer, &quiet)
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Existed);

    let one = bundle(&store, &["amd64"], &options);
    let digest = push_bundle(&client, &store, &one, &[target], true, &quiet)
        .await
        .unwrap();
    let raw = "skopeo inspect --raw --tls-verify=false docker:/";
    let line = format!("{raw}/{}/c@{digest}", registry.host);
    assert_eq!(Digest::sha256(run(dir.path(), &line)), digest);
    let by_tag = try_run(dir.path(), &format!("{raw}/{}/c:v1", registry.host));
    assert!(
        by_tag.unwrap_err().contains("manifest unknown"),
        "no tag was moved"
    );
}

#[test]
fn missing_content_is_found_before_something_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let bundle = bundle(&store, &["amd64"], &options(Compression::gzip()));
    let empty = Store::open(&dir.path().join("empty")).unwrap();
    let mut out = Vec::new();
    let to = Destination::Stream(&mut out);
    let error = export_archive(&empty, &bundle, &[], ArchiveFormat::Oci, to).unwrap_err();
    assert!(matches!(error, ExportError::Missing { .. }), "{error}");
    assert!(out.is_empty());
}
