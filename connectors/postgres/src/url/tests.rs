use super::*;

fn parse(text: &str) -> Result<Url, UrlError> {
    UrlSetting::Text(text.to_owned()).parse()
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.to_owned(), address: None, port }
}

#[test]
fn a_uri_and_keywords_mean_the_same() {
    let uri = parse("postgres://us%65r:p%40ss@one:1,two/shop?sslmode=verify-full&connect_timeout=3").unwrap();
    let keywords = parse(
        r"host=one,two port = 1,5432 user=user password='p@ss' dbname=shop sslmode=verify-full connect_timeout=3",
    )
    .unwrap();
    assert_eq!(uri, keywords);
    assert_eq!(uri.hosts, [tcp("one", 1), tcp("two", 5432)]);
    assert_eq!(uri.password, Password::Text("p@ss".to_owned()));
    assert_eq!(uri.connect_timeout, Duration::from_secs(3));
}

#[test]
fn parts_mean_the_same_too() {
    let parts = UrlParts {
        host: "one".to_owned(),
        port: Some(parts::PortSetting::One(1)),
        user: "me".to_owned(),
        password: Some("a b".to_owned()),
        sslmode: Some("require".to_owned()),
        ..UrlParts::default()
    };
    let parsed = UrlSetting::Parts(Box::new(parts)).parse().unwrap();
    assert_eq!(parsed, parse("postgres://me:a%20b@one:1?sslmode=require").unwrap());
    assert_eq!(parsed.database, "me");
}

#[test]
fn hosts_may_be_sockets_and_addresses() {
    let socket = Host::Unix { directory: "/run/postgresql".into(), port: 5433 };
    assert_eq!(
        parse("postgres://me@%2Frun%2Fpostgresql:5433/db").unwrap().hosts,
        std::slice::from_ref(&socket)
    );
    assert_eq!(parse("postgres:///db?user=me&host=/run/postgresql&port=5433").unwrap().hosts, [socket]);
    assert_eq!(parse("postgres://me@[::1]:7/db").unwrap().hosts, [tcp("::1", 7)]);
    let by_address = parse("user=me host=db.example hostaddr=10.0.0.1").unwrap();
    let address = "10.0.0.1".parse().ok();
    assert_eq!(by_address.hosts, [Host::Tcp { name: "db.example".to_owned(), address, port: 5432 }]);
}

#[test]
fn an_at_sign_after_the_credentials_is_no_end_of_them() {
    let url = parse("postgres://me@host/db?application_name=a@b").unwrap();
    assert_eq!(url.application_name, "a@b");
    assert_eq!(url.hosts, [tcp("host", 5432)]);
}

#[test]
fn quotes_and_backslashes_of_keywords_are_undone() {
    let url = parse(r"host=h user=u password='it\'s a \\' dbname=").unwrap();
    assert_eq!(url.password, Password::Text(r"it's a \".to_owned()));
    assert_eq!(url.database, "u");
}

#[test]
fn each_mistake_is_named() {
    for (text, said) in [
        ("postgres://host/db", "names no user"),
        ("postgres://me@/db", "names no host"),
        ("postgres://me@h/db?pgbouncer=true", "`pgbouncer` is not a known connection parameter"),
        ("postgres://me@h/db?sslmode=verify", "`sslmode` cannot be `verify`"),
        ("postgres://me@h:x/db", "`port` cannot be `…`"),
        ("postgres://me@h:70000/db", "`port` cannot be `70000`"),
        ("host=a,b,c port=1,2 user=me", "another number of ports"),
        ("host=h user=me connect_timeout=0", "`connect_timeout` cannot be `0`"),
        ("host=h user=me sslcert=a", "without the other"),
        ("host=h user='me", "not closed"),
        ("nonsense", "write `postgres://"),
        ("postgres://me:100%@h/db", "%25"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn no_password_is_ever_shown() {
    let setting = UrlSetting::Text("postgres://me:secret@h/db".to_owned());
    assert!(!format!("{setting:?} {:?}", setting.parse().unwrap()).contains("secret"));
    let wrong = parse("postgres://me:secret@h/db?x=1").unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("secret"));
    let wrong = parse("postgres://me:secret/x@h/db").unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("secret"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}", tail in ".{0,60}") {
        let _ = parse(&text);
        let _ = parse(&format!("postgres://{text}@{tail}"));
    }

    #[test]
    fn any_password_survives_its_encoding(password in ".{0,20}") {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let quoted = password.replace('\\', r"\\").replace('\'', r"\'");
        let expected = Password::Text(password);
        proptest::prop_assert_eq!(&parse(&format!("postgres://me:{encoded}@h")).unwrap().password, &expected);
        proptest::prop_assert_eq!(&parse(&format!("host=h user=me password='{quoted}'")).unwrap().password, &expected);
    }
}
