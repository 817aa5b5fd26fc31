//! pgvector's types, with the real extension: PostgreSQL 18 finds it outside of its own folders.

use std::path::Path;
use std::process::Stdio;

use forebay_integration::Postgres;
use tokio::process::Command;

use super::kind::Kind;
use super::leaves::Leaf;
use super::{Reading, Typed, When};

/// The first major version that looks for extensions where it is told to.
const MAJOR: u16 = 18;

const fn leaf(sql: &'static str, second: &'static str, literals: &'static [&'static str]) -> Leaf {
    Leaf { sql, second, literals, later: &[], random: None }
}

const DENSE: &str = "to_json(($)::real[])";
/// Only a vector can be taken apart, and none has so many dimensions as a sparse one may have.
const SPARSE: &str = "json_build_object('dimensions', vector_dims(($)::vector), 'elements', \
    (SELECT coalesce(json_object_agg(n, v), '{}') FROM unnest((($)::vector)::real[]) WITH ORDINALITY AS e (v, n) WHERE v <> 0))";

static VECTOR: Leaf = leaf("public.vector(3)", DENSE, &["[1,2,3]", "[-0.1,1e-38,3.4e38]", "[0,-0,1e20]"]);
static ANY_VECTOR: Leaf = leaf("public.vector", DENSE, &["[1]", "[1,2.5,-3e-7,0.30000001]"]);
static HALF: Leaf = leaf("public.halfvec(2)", DENSE, &["[0.1,65504]", "[-1e-7,2]"]);
static SPARSE_VECTOR: Leaf =
    leaf("public.sparsevec(5)", SPARSE, &["{1:0.5,3:2}/5", "{}/5", "{5:-1e-30}/5", "{1:0,2:7}/5"]);
static ANY_SPARSE: Leaf = leaf("public.sparsevec", SPARSE, &["{10:1}/16000", "{}/1"]);

/// The folder that the extension is in.
async fn bring() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/pgvector.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg("fetch").stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.expect("bash is there");
    assert!(output.status.success(), "pgvector cannot be had; the script has said why");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_arrays_of_numbers_and_sparse_ones_say_what_they_leave_out() {
    let folder = bring().await;
    let (control, library) = (format!("$system:{folder}/share"), format!("$libdir:{folder}/lib"));
    let settings = [("extension_control_path", control.as_str()), ("dynamic_library_path", library.as_str())];
    let server = Postgres::start(MAJOR, &settings).await;
    let db = server.database("vectors").await;
    db.execute(
        "CREATE EXTENSION vector; CREATE TYPE embedded AS (model text, at vector(3));
         CREATE DOMAIN embedding AS vector(3)",
    )
    .await;
    let embedded = vec![("model", Kind::Leaf(&super::leaves::TEXT)), ("at", Kind::Leaf(&VECTOR))];
    let columns = vec![
        Kind::Leaf(&VECTOR),
        Kind::Leaf(&ANY_VECTOR),
        Kind::Leaf(&HALF),
        Kind::Leaf(&SPARSE_VECTOR),
        Kind::Leaf(&ANY_SPARSE),
        Kind::array(Kind::Leaf(&VECTOR)),
        Kind::array(Kind::Leaf(&SPARSE_VECTOR)),
        Kind::Composite { name: "embedded", attributes: embedded },
        Kind::Domain { name: "embedding", base: Box::new(Kind::Leaf(&VECTOR)) },
    ];
    let typed = Typed::create(db, columns, MAJOR).await;
    let mut reading = Reading::of(&typed.db, "public.typed", "    snapshot: never");
    reading.start().await;
    let count = typed.fill().await;
    let events = reading.rows(count).await;
    typed.expect(&events, When::After).await;
}
