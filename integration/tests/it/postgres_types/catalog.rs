//! What the catalog says of types, asked again after they have changed.

use forebay_integration::{Database, Postgres};
use forebay_postgres::decode::types::{TypeCatalog, TypeKind};
use forebay_postgres::decode::{Encoder, Scratch};
use tokio_postgres::Client;

use super::MAJORS;

async fn oid(db: &Database, name: &str) -> u32 {
    db.value(&format!("SELECT '{name}'::regtype::oid")).await
}

/// The JSON of a text, or why there is none.
fn written(types: &TypeCatalog, oid: u32, text: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let encoded = types.column_type(oid).encoder.encode(text.as_bytes(), &mut out, &mut Scratch::default());
    encoded.map(|()| String::from_utf8(out).unwrap()).map_err(|error| error.to_string())
}

async fn load(types: &mut TypeCatalog, client: &Client, oids: &[u32]) {
    types.load(client, oids).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_has_changed_is_known_anew_and_one_that_is_gone_stays_what_it_was() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("changed").await;
        db.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (a int, m mood)").await;
        let client = db.connect().await;
        let (mood, pair) = (oid(&db, "mood").await, oid(&db, "pair").await);
        let mut types = TypeCatalog::default();
        load(&mut types, &client, &[pair]).await;
        assert!(types.missing([pair, mood]).is_empty(), "what a type is made of came with it");
        assert_eq!(written(&types, pair, "(1,sad)").unwrap(), r#"{"a":1,"m":"sad"}"#);
        written(&types, pair, "(1,glad)").unwrap_err();

        db.execute("ALTER TYPE mood ADD VALUE 'glad' BEFORE 'sad'").await;
        db.execute("ALTER TYPE pair RENAME ATTRIBUTE a TO b; ALTER TYPE pair ADD ATTRIBUTE c text").await;
        written(&types, pair, "(1,glad,x)").unwrap_err();
        load(&mut types, &client, &[pair]).await;
        assert_eq!(written(&types, pair, "(1,glad,x)").unwrap(), r#"{"b":1,"m":"glad","c":"x"}"#);
        let Encoder::Enum(labels) = types.column_type(mood).encoder else { panic!("mood is an enumeration") };
        assert_eq!(labels.labels(), ["glad", "sad"], "in the type's order");

        db.execute("DROP TYPE pair; DROP TYPE mood").await;
        load(&mut types, &client, &[pair, mood]).await;
        assert_eq!(written(&types, mood, "sad").unwrap(), r#""sad""#);
        let mut late = TypeCatalog::default();
        load(&mut late, &client, &[pair]).await;
        assert_eq!(late.get(pair).unwrap().kind, TypeKind::Gone);
        assert_eq!(written(&late, pair, "(1,sad)").unwrap(), r#""(1,sad)""#);
    }
}
