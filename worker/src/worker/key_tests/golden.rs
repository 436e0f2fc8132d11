//! Keys of fixed vertices. Whoever changes one by accident finds it here.

use kiln_graph::{Mode, Principal};

use super::bench::{Bench, first_path};
use super::{linked, linked_with_name, one_file, owner, with_mode, with_owner};

type Make = fn() -> Bench;

pub(super) const BENCHES: &[(&str, Make)] = &[
    ("exec", Bench::exec),
    ("exec without mounts", || {
        let mut bench = Bench::exec();
        bench.exec_op().mounts.clear();
        bench
    }),
    ("copy", Bench::copy),
    ("copy of one file", one_file),
    ("copy of a wildcard with a change of mode", || {
        let mut bench = Bench::copy();
        *first_path(bench.copy_op()) = "/d/*".to_owned();
        bench.copy_op().mode = Some(Mode::Change("u+x".parse().unwrap()));
        bench
    }),
    ("copy with mode", with_mode),
    ("copy with owner", with_owner),
    ("copy with the name of an owner and a group", || {
        let mut bench = Bench::copy();
        let name = |name: &str| Principal::Name(name.to_owned());
        bench.copy_op().owner = Some(owner(name("u"), Some(name("g"))));
        bench
    }),
    ("linked copy", linked),
    ("linked copy with the name of an owner", linked_with_name),
    ("make directory", Bench::make_dir),
];

pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "exec",
        "da0eb364f9658ade138441c3f2601c68045d4528cbe3e7391a69c0b664ba566b",
    ),
    (
        "exec without mounts",
        "df44133014b211cc8bd3896b21bae8bee8535eaba99dcbb632798da6109d172a",
    ),
    (
        "copy",
        "17adec8feab646f7b65a59b40caee64ee0fb362338f81e8f3d72dbc4598915dd",
    ),
    (
        "copy of one file",
        "71fdc0fec8eeecbad487498d2fca0dc7f5ff8eb75431c17429ce6d00ac105dc8",
    ),
    (
        "copy of a wildcard with a change of mode",
        "336849851a0495f76b5df599055388e481e4c22a9061bb535e329d37a7e76d55",
    ),
    (
        "copy with mode",
        "f82de6b699cc71a12acbaa85958d6f622b6d22207ee1e7cc3ca2cc129f0e9c65",
    ),
    (
        "copy with owner",
        "36df88911ff08b29302a56d91d9cde9435ba5ae48233159d059be250c83ff7a4",
    ),
    (
        "copy with the name of an owner and a group",
        "6e68d4c6e45b38b809ac13c2b081aa6d38d3def8878aafa1c4037c6e48319f58",
    ),
    (
        "linked copy",
        "914b9ae3cb1a305ada769c5fdccc95692cb4aef57b91f9150963edb650a0d27a",
    ),
    (
        "linked copy with the name of an owner",
        "1873ac5a7b0214b75d14922d8e777fec550ebc19bd39609c70c68e8e71dfe5b7",
    ),
    (
        "make directory",
        "3378a6663348d28252b5466cd2fe6aad4a595d3b371ad3e7b5bfa0734ae25b9a",
    ),
];
