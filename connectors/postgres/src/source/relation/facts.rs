//! [`Facts`]: what the catalogs say of one table now, and the relation message that the server would send of it.
//!
//! The message decides whether a relation of the stream is the table as it is now, or as it was when an older part of
//! the log was written: the two are compared byte by byte.

use tokio_postgres::{Client, Error, Row};

use crate::protocol::{Column, Relation, ReplicaIdentity};

/// What the catalogs say of a table.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Its schema.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its comment.
    pub(super) comment: Option<String>,
    /// The partitioned table at the top, as schema and name, where it is a partition.
    pub(super) root: Option<(String, String)>,
    /// Its published columns, in the order of the stream.
    pub(super) columns: Vec<ColumnFacts>,
    /// What the server gives of old rows.
    pub(super) identity: ReplicaIdentity,
    /// Its oid.
    pub(super) oid: u32,
}

/// What they say of a column.
#[derive(Clone, Debug)]
pub(super) struct ColumnFacts {
    /// Its name.
    pub(super) name: String,
    /// Its type.
    pub(super) type_oid: u32,
    /// Its type's modifier.
    pub(super) modifier: i32,
    /// Whether it belongs to the replica identity.
    pub(super) identifying: bool,
    /// Whether it belongs to the primary key.
    pub(super) primary: bool,
    /// Whether every row has a value.
    pub(super) not_null: bool,
    /// Whether values of its type are never stored out of line, so that the server always sends them. It is the type
    /// that decides and not the column's storage, which leaves values alone that are stored already.
    pub(super) inline: bool,
    /// Its comment.
    pub(super) comment: Option<String>,
}

const TABLE: &str = "
    SELECT n.nspname::text AS namespace, c.relname::text AS name, c.relreplident::text AS identity,
        pg_catalog.obj_description(c.oid, 'pg_class') AS comment, rn.nspname::text AS root_namespace, r.relname::text AS root
    FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
        LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
    WHERE c.oid = $1";

/// From PostgreSQL 18 on a column is `attnotnull` also while rows from before are still to be looked through. A
/// deferrable key is no identity, and what an index only includes belongs to no key.
const COLUMNS: &str = "
    SELECT a.attnum, a.attname::text AS name, a.atttypid AS type, a.atttypmod AS modifier, a.attgenerated::text AS generated,
        a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint n WHERE n.conrelid = a.attrelid AND n.contype = 'n'
            AND n.conkey = ARRAY[a.attnum] AND NOT n.convalidated) AS not_null,
        t.typstorage = 'p' AS inline, pg_catalog.col_description(a.attrelid, a.attnum) AS comment,
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indimmediate AND i.indisvalid
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
            AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) AS identifying,
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary
            AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) AS primary
    FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum";

/// Column lists came with PostgreSQL 15 and generated columns with 18, and an older server would not parse their names:
/// so they are read out of the rows' JSON.
const PUBLISHED: &str = "
    SELECT pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's' AS generated,
        CASE pg_catalog.jsonb_typeof(pg_catalog.to_jsonb(r) -> 'prattrs') WHEN 'array'
            THEN ARRAY(SELECT n::int2 FROM pg_catalog.jsonb_array_elements_text(pg_catalog.to_jsonb(r) -> 'prattrs') n) END AS listed
    FROM pg_catalog.pg_publication p
        LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $1
    WHERE p.pubname = ANY ($2)";

impl Facts {
    /// Asks for a table as these publications publish it; `None`: there is none of this oid.
    pub(super) async fn of(
        client: &Client,
        table: u32,
        publications: &[String],
    ) -> Result<Option<Facts>, Error> {
        let Some(row) = client.query_opt(TABLE, &[&table]).await? else { return Ok(None) };
        let identity = match row.try_get("identity")? {
            "d" => ReplicaIdentity::Default,
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            _ => ReplicaIdentity::Nothing,
        };
        let published = Published::of(client, table, publications).await?;
        let mut columns = Vec::new();
        for row in client.query(COLUMNS, &[&table]).await? {
            if published.has(row.try_get("attnum")?, row.try_get("generated")?) {
                columns.push(ColumnFacts::read(&row, identity)?);
            }
        }
        let root: Option<String> = row.try_get("root")?;
        let root = match root {
            Some(root) => Some((row.try_get("root_namespace")?, root)),
            None => None,
        };
        Ok(Some(Facts {
            namespace: row.try_get("namespace")?,
            name: row.try_get("name")?,
            comment: row.try_get("comment")?,
            root,
            columns,
            identity,
            oid: table,
        }))
    }

    /// What the server would send of the table.
    pub(super) fn message(&self) -> Vec<u8> {
        let namespace = if self.namespace == "pg_catalog" { "" } else { &self.namespace };
        let columns = self.columns.iter().map(|column| Column {
            key: column.identifying,
            name: &column.name,
            type_oid: column.type_oid,
            type_modifier: column.modifier,
        });
        write_message((self.oid, namespace, &self.name, self.identity), columns)
    }

    /// What is said of a column, if it is still the one of this name and type.
    pub(super) fn column(&self, name: &str, type_oid: u32) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == name && column.type_oid == type_oid)
    }
}

impl ColumnFacts {
    fn read(row: &Row, identity: ReplicaIdentity) -> Result<ColumnFacts, Error> {
        Ok(ColumnFacts {
            name: row.try_get("name")?,
            type_oid: row.try_get("type")?,
            modifier: row.try_get("modifier")?,
            identifying: identity == ReplicaIdentity::Full || row.try_get("identifying")?,
            primary: row.try_get("primary")?,
            not_null: row.try_get("not_null")?,
            inline: row.try_get("inline")?,
            comment: row.try_get("comment")?,
        })
    }
}

/// Which columns publications publish.
struct Published {
    /// Those that a publication lists.
    listed: Option<Vec<i16>>,
    /// Whether generated ones are published, where nothing is listed.
    generated: bool,
}

impl Published {
    async fn of(client: &Client, table: u32, publications: &[String]) -> Result<Published, Error> {
        let mut published = Published { listed: None, generated: false };
        for row in client.query(PUBLISHED, &[&table, &publications]).await? {
            // A server refuses two publications that list different columns of a table.
            published.listed = published.listed.or(row.try_get("listed")?);
            published.generated |= row.try_get::<_, Option<bool>>("generated")?.unwrap_or(false);
        }
        Ok(published)
    }

    fn has(&self, number: i16, generated: &str) -> bool {
        match &self.listed {
            Some(listed) => listed.contains(&number),
            None => generated.is_empty() || (self.generated && generated == "s"),
        }
    }
}

/// The bytes of a relation that was read.
pub(super) fn message_of(relation: &Relation<'_>) -> Vec<u8> {
    let Relation { id, namespace, name, identity, .. } = *relation;
    write_message((id, namespace, name, identity), relation.columns())
}

fn write_message<'a>(
    (oid, namespace, name, identity): (u32, &str, &str, ReplicaIdentity),
    columns: impl Iterator<Item = Column<'a>>,
) -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend_from_slice(&oid.to_be_bytes());
    for text in [namespace, name] {
        message.extend_from_slice(text.as_bytes());
        message.push(0);
    }
    message.push(match identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    let count_at = message.len();
    message.extend_from_slice(&[0; 2]);
    let mut count: u16 = 0;
    for column in columns {
        count += 1;
        message.push(u8::from(column.key));
        message.extend_from_slice(column.name.as_bytes());
        message.push(0);
        message.extend_from_slice(&column.type_oid.to_be_bytes());
        message.extend_from_slice(&column.type_modifier.to_be_bytes());
    }
    message[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Message, message};

    fn facts() -> Facts {
        let column = |name: &str, type_oid, identifying| ColumnFacts {
            name: name.to_owned(),
            type_oid,
            modifier: -1,
            identifying,
            primary: identifying,
            not_null: identifying,
            inline: true,
            comment: None,
        };
        Facts {
            namespace: "pg_catalog".to_owned(),
            name: "größe".to_owned(),
            comment: None,
            root: None,
            columns: vec![column("id", 23, true), column("body", 25, false)],
            identity: ReplicaIdentity::Default,
            oid: 7,
        }
    }

    #[test]
    fn the_message_of_a_relation_is_the_one_that_it_was_read_from() {
        let bytes = facts().message();
        let Message::Relation(relation) = message(&bytes).unwrap() else { unreachable!() };
        assert_eq!((relation.id, relation.namespace, relation.name), (7, "", "größe"));
        let columns: Vec<_> =
            relation.columns().map(|column| (column.key, column.name, column.type_oid)).collect();
        assert_eq!(columns, [(true, "id", 23), (false, "body", 25)]);
        assert_eq!(message_of(&relation), bytes);
    }

    #[test]
    fn a_list_of_columns_decides_alone() {
        let none = Published { listed: None, generated: false };
        assert!(none.has(1, "") && !none.has(2, "s"));
        let stored = Published { listed: None, generated: true };
        assert!(stored.has(2, "s") && !stored.has(2, "v"));
        let listed = Published { listed: Some(vec![2]), generated: false };
        assert!(listed.has(2, "s") && !listed.has(1, ""));
    }
}
