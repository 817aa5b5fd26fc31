use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::source::own_schemas;

fn value(object: Option<Object>) -> Value {
    object.map_or(Value::Null, |object| serde_json::from_slice(&object.finish()).unwrap())
}

#[test]
fn a_campaign_is_what_the_parameters_of_the_page_say() {
    let settings = campaign::Settings::default();
    let of = |page: &str| value(campaign::of(page, &settings));
    assert_eq!(
        of(
            "https://a.b/?utm_source=news&utm_medium=email&utm_campaign=Spring+%26+co&utm_term=&x=%zz&gclid=abc#?utm_source=no"
        ),
        json!({"medium": "email", "source": "news", "campaign": "Spring & co", "click_id": "abc", "network": "Google"})
    );
    assert_eq!(of("https://a.b/?q=1"), Value::Null);
    assert_eq!(of("https://a.b/#?utm_source=x"), Value::Null);
    let own: campaign::Settings =
        serde_json::from_str(r#"{"source":["src","utm_source"],"medium":[]}"#).unwrap();
    assert_eq!(value(campaign::of("/p?utm_source=b&src=a&utm_medium=c", &own)), json!({"source": "a"}));
}

#[test]
fn a_referrer_is_known_by_its_host_and_nothing_that_only_looks_alike() {
    let settings: referrer::Settings = serde_json::from_str(r#"{"internal":["Acme.com"]}"#).unwrap();
    for (address, medium, source, term) in [
        ("https://www.google.de/search?q=red+shoes", "search", "Google", "red shoes"),
        ("https://google.co.uk/?q=", "search", "Google", ""),
        ("https://yandex.ru/?text=%D0%B0", "search", "Yandex", "а"),
        ("https://mail.google.com/", "email", "Gmail", ""),
        ("https://t.co/abc", "social", "X", ""),
        ("https://l.facebook.com/l.php", "social", "Facebook", ""),
        ("https://shop.acme.com/", "internal", "", ""),
        ("https://www.page.example/other", "internal", "", ""),
        ("https://evilgoogle.de/?q=x", "unknown", "", ""),
        ("https://google.de.evil.example/?q=x", "unknown", "", ""),
        ("https://notacme.com/", "unknown", "", ""),
        ("https://nott.co/", "unknown", "", ""),
    ] {
        let got = value(referrer::of(address, Some("https://www.page.example/"), &settings));
        let text = |name: &str| got[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((&*text("medium"), &*text("source"), &*text("term")), (medium, source, term), "{address}");
    }
    for none in ["", "about:blank", "android-app://com.google", "https://a@b/"] {
        assert!(referrer::of(none, None, &settings).is_none(), "{none}");
    }
}

#[test]
fn user_agents_are_told_apart_though_each_claims_to_be_others() {
    for (text, expected) in [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.2903.51",
            "Edge 131 Windows desktop",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
            "Safari 18 macOS desktop",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1",
            "Chrome 131 iOS mobile",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1",
            "Safari 17 iOS tablet",
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36",
            "Samsung Internet 26 Android mobile",
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
            "Firefox 133 Linux desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
            "Internet Explorer - Windows desktop",
        ),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "other - other bot"),
        ("curl/8.5.0", "curl 8 other other"),
        ("nonsense", "other - other other"),
    ] {
        let got = value(user_agent::of(text));
        let word = |name: &str| got[name].as_str().unwrap_or("-").to_owned();
        let line = ["browser", "browser_version", "system", "device"].map(word).join(" ");
        assert_eq!(line, expected, "{text}");
    }
    assert!(user_agent::of("  ").is_none());
}

/// A file in MaxMind's format: addresses that begin with bit 0 are in Germany, all others unknown.
fn database() -> Vec<u8> {
    fn string(text: &str) -> Vec<u8> {
        [&[0x40 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }
    fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let head = vec![0xe0 | u8::try_from(members.len()).unwrap()];
        members.iter().fold(head, |map, (name, value)| [map, string(name), value.clone()].concat())
    }
    let number = |kind: u8, value: u8| vec![kind << 5 | 1, value];
    // One node of two records of 24 bits: the first leads to the data behind 16 bytes, the second nowhere.
    let tree = [0, 0, 17, 0, 0, 1];
    let data = map(&[
        ("country", map(&[("iso_code", string("DE"))])),
        ("continent", map(&[("code", string("EU"))])),
    ]);
    let metadata = map(&[
        ("binary_format_major_version", number(5, 2)),
        ("binary_format_minor_version", vec![5 << 5]),
        ("build_epoch", vec![1, 2, 1]),
        ("database_type", string("Test-Country")),
        ("description", map(&[("en", string("test"))])),
        ("ip_version", number(5, 4)),
        ("languages", vec![0, 4]),
        ("node_count", number(6, 1)),
        ("record_size", number(5, 24)),
    ]);
    [&tree[..], &[0; 16], &data, b"\xab\xcd\xefMaxMind.com", &metadata].concat()
}

#[test]
fn a_country_comes_from_the_operators_file_and_the_address_is_not_told() {
    let path = std::env::temp_dir().join(format!("forebay-countries-{}.mmdb", std::process::id()));
    std::fs::write(&path, database()).unwrap();
    let settings = Settings {
        country: Some(country::Settings { database: path.clone() }),
        ..serde_json::from_str(r#"{"campaign":{},"referrer":{},"user_agent":{}}"#).unwrap()
    };
    let enrichments = Enrichments::open(settings).unwrap();
    std::fs::remove_file(&path).unwrap();
    let all = |client: &str| {
        let facts = Facts {
            page: Some("https://a.b/?utm_source=x"),
            referrer: Some("https://bing.com/?q=y"),
            user_agent: Some("curl/8.5.0"),
            client: Some(client.parse().unwrap()),
        };
        let mut entities = Entities::default();
        enrichments.add(&facts, &mut entities).unwrap();
        serde_json::from_slice::<Vec<Value>>(&entities.finish()).unwrap()
    };
    let known = all("::ffff:81.2.69.142");
    assert_eq!(
        known[3],
        json!({"schema": "io.forebay/country/1-0-0", "data": {"country": "DE", "continent": "EU"}})
    );
    assert_eq!(all("203.0.113.1").len(), 3, "an address that the file does not know");
    for entity in &known {
        let schema = own_schemas::text(entity["schema"].as_str().unwrap()).unwrap();
        let validator = jsonschema::draft202012::new(&serde_json::from_str(&schema).unwrap()).unwrap();
        assert!(validator.is_valid(&entity["data"]), "{entity}");
    }
    let missing =
        serde_json::from_str::<Settings>(r#"{"country":{"database":"/nonexistent.mmdb"}}"#).unwrap();
    let error = Enrichments::open(missing).unwrap_err().to_string();
    assert_eq!(error, "reading the countries of addresses from `/nonexistent.mmdb`");
    assert!(
        Enrichments::open(Settings::default())
            .unwrap()
            .add(&Facts::default(), &mut Entities::default())
            .is_ok()
    );
}

proptest! {
    #[test]
    fn any_text_is_safe(text in "(https?://[a-z.]{0,9}/?\\?)?[ -~é]{0,40}") {
        let _ = (campaign::of(&text, &campaign::Settings::default()), user_agent::of(&text));
        let _ = referrer::of(&text, Some(&text), &referrer::Settings::default());
    }
}
