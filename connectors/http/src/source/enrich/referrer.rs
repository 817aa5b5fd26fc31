//! What kind of page led to a page. The list is short on purpose: it names who leads visitors to most sites.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::object::Object;
use crate::source::redirect::Target;
use crate::source::text;

/// Search engines: a domain, or one under any top-level domain where it ends in `.`; the name; the parameters with what
/// was searched for.
const SEARCH: [(&str, &str, &[&str]); 16] = [
    ("google.", "Google", &["q"]),
    ("bing.com", "Bing", &["q"]),
    ("duckduckgo.com", "DuckDuckGo", &["q"]),
    ("yahoo.com", "Yahoo", &["p", "q"]),
    ("yahoo.co.jp", "Yahoo", &["p"]),
    ("yandex.", "Yandex", &["text"]),
    ("ya.ru", "Yandex", &["text"]),
    ("baidu.com", "Baidu", &["wd", "word"]),
    ("ecosia.org", "Ecosia", &["q"]),
    ("qwant.com", "Qwant", &["q"]),
    ("startpage.com", "Startpage", &["query"]),
    ("search.brave.com", "Brave", &["q"]),
    ("kagi.com", "Kagi", &["q"]),
    ("naver.com", "Naver", &["query"]),
    ("seznam.cz", "Seznam", &["q"]),
    ("sogou.com", "Sogou", &["query"]),
];

/// Social networks.
const SOCIAL: [(&str, &str); 24] = [
    ("facebook.com", "Facebook"),
    ("fb.me", "Facebook"),
    ("instagram.com", "Instagram"),
    ("threads.net", "Threads"),
    ("threads.com", "Threads"),
    ("whatsapp.com", "WhatsApp"),
    ("twitter.com", "X"),
    ("x.com", "X"),
    ("t.co", "X"),
    ("linkedin.com", "LinkedIn"),
    ("lnkd.in", "LinkedIn"),
    ("reddit.com", "Reddit"),
    ("youtube.com", "YouTube"),
    ("youtu.be", "YouTube"),
    ("tiktok.com", "TikTok"),
    ("pinterest.", "Pinterest"),
    ("bsky.app", "Bluesky"),
    ("mastodon.social", "Mastodon"),
    ("t.me", "Telegram"),
    ("vk.com", "VK"),
    ("weibo.com", "Weibo"),
    ("quora.com", "Quora"),
    ("tumblr.com", "Tumblr"),
    ("news.ycombinator.com", "Hacker News"),
];

/// Mail in a browser.
const MAIL: [(&str, &str); 6] = [
    ("mail.google.com", "Gmail"),
    ("outlook.live.com", "Outlook"),
    ("outlook.office.com", "Outlook"),
    ("mail.yahoo.com", "Yahoo Mail"),
    ("mail.proton.me", "Proton Mail"),
    ("mail.yandex.ru", "Yandex Mail"),
];

/// The keys of `referrer`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ReferrerSettings")]
pub struct Settings {
    /// Domains that are our own, with all below them: `example.com`.
    pub internal: Vec<String>,
}

/// `medium` (`internal`, `search`, `social`, `email`, `unknown`), `source` where it is known, and `term` where a search
/// engine tells; `None` where the address is none of the web.
pub fn of(address: &str, page: Option<&str>, settings: &Settings) -> Option<Object> {
    let host = Target::parse(address).ok()?.host;
    let page_host = page.and_then(|page| Target::parse(page).ok()).map(|target| target.host);
    let mut object = Object::default();
    let own = settings.internal.iter().any(|domain| is_below(&host, &domain.to_ascii_lowercase()));
    if own || page_host.as_ref() == Some(&host) {
        object.push_string("medium", "internal");
    } else if let Some((_, source)) = MAIL.iter().find(|(domain, _)| is_below(&host, domain)) {
        object.push_string("medium", "email");
        object.push_string("source", source);
    } else if let Some((_, source, terms)) = SEARCH.iter().find(|(domain, ..)| is_below(&host, domain)) {
        object.push_string("medium", "search");
        object.push_string("source", source);
        if let Some(term) = term(address, terms) {
            object.push_string("term", &term);
        }
    } else if let Some((_, source)) = SOCIAL.iter().find(|(domain, _)| is_below(&host, domain)) {
        object.push_string("medium", "social");
        object.push_string("source", source);
    } else {
        object.push_string("medium", "unknown");
    }
    object.push_string("host", &host);
    Some(object)
}

/// Whether `host` is `domain` or below it. A domain that ends in `.` may have any top-level domain, of two parts where
/// the first is as short as in `co.uk`.
fn is_below(host: &str, domain: &str) -> bool {
    let ends = |host: &str, domain: &str| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let Some(name) = domain.strip_suffix('.') else { return ends(host, domain) };
    let Some((rest, last)) = host.rsplit_once('.') else { return false };
    let second = rest.rsplit_once('.').filter(|(_, second)| last.len() == 2 && second.len() <= 3);
    ends(rest, name) || second.is_some_and(|(rest, _)| ends(rest, name))
}

fn term(address: &str, names: &[&str]) -> Option<String> {
    let query = address.split('#').next()?.split_once('?')?.1;
    let found = text::pairs(query)
        .filter_map(Result::ok)
        .find(|(name, value)| names.contains(&&**name) && !value.is_empty());
    found.map(|(_, value)| value.into_owned())
}
