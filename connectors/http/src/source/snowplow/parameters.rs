//! The parameters of the tracker protocol: one table, from which events are read and schemas are printed.

use std::sync::LazyLock;

/// What a parameter's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Itself.
    Text,
    /// A whole number.
    Integer,
    /// A number; its digits are kept.
    Number,
    /// `1` or `0`.
    Flag,
    /// Milliseconds since the Unix epoch.
    Time,
    /// `WIDTHxHEIGHT`; the field is the width, this the height.
    Size(&'static str),
    /// A URL, whose parts are fields with this prefix.
    Url(&'static str),
    /// Where the tracker runs.
    Platform,
    /// Read apart from the others.
    Special,
}

impl Kind {
    /// A word for what the text should have been, for programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Text | Kind::Special => "text",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Flag => "boolean",
            Kind::Time => "time",
            Kind::Size(_) => "size",
            Kind::Url(_) => "url",
            Kind::Platform => "enum",
        }
    }
}

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Every event.
    Common,
    /// The page, of which a page view is.
    Page,
    /// A page ping.
    Ping,
    /// A structured event.
    Structured,
    /// A transaction.
    Transaction,
    /// An item of one.
    Item,
    /// An advertisement that was shown.
    Ad,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// As trackers send it.
    pub name: &'static str,
    /// As it is called in events.
    pub field: &'static str,
    /// What its text means.
    pub kind: Kind,
    /// What it belongs to.
    pub group: Group,
}

const fn of(name: &'static str, field: &'static str, kind: Kind, group: Group) -> Parameter {
    Parameter { name, field, kind, group }
}

/// All of them, in the order of the fields of an event.
#[rustfmt::skip]
pub(super) const PARAMETERS: [Parameter; 76] = {
    use Group::{Ad, Common, Item, Page, Ping, Structured, Transaction};
    use Kind::{Flag, Integer, Number, Platform, Size, Special, Text, Time, Url};
    [
        of("e", "event", Special, Common),
        of("eid", "event_id", Special, Common),
        of("ue_px", "unstruct_event", Special, Common),
        of("ue_pr", "unstruct_event", Special, Common),
        of("cx", "contexts", Special, Common),
        of("co", "contexts", Special, Common),
        of("tnuid", "network_userid", Special, Common),
        of("nuid", "network_userid", Special, Common),
        of("ip", "user_ipaddress", Special, Common),
        of("ua", "useragent", Special, Common),
        of("n3pc", "", Special, Common),
        of("aid", "app_id", Text, Common),
        of("p", "platform", Platform, Common),
        of("dtm", "dvce_created_tstamp", Time, Common),
        of("stm", "dvce_sent_tstamp", Time, Common),
        of("ttm", "true_tstamp", Time, Common),
        of("tna", "name_tracker", Text, Common),
        of("tv", "v_tracker", Text, Common),
        of("cv", "v_collector", Text, Common),
        of("tid", "txn_id", Integer, Common),
        of("evn", "event_vendor", Text, Common),
        of("uid", "user_id", Text, Common),
        of("duid", "domain_userid", Text, Common),
        of("sid", "domain_sessionid", Text, Common),
        of("vid", "domain_sessionidx", Integer, Common),
        of("fp", "user_fingerprint", Text, Common),
        of("mac", "mac_address", Text, Common),
        of("tz", "os_timezone", Text, Common),
        of("lang", "br_lang", Text, Common),
        of("cd", "br_colordepth", Text, Common),
        of("cookie", "br_cookies", Flag, Common),
        of("f_pdf", "br_features_pdf", Flag, Common),
        of("f_fla", "br_features_flash", Flag, Common),
        of("f_java", "br_features_java", Flag, Common),
        of("f_dir", "br_features_director", Flag, Common),
        of("f_qt", "br_features_quicktime", Flag, Common),
        of("f_realp", "br_features_realplayer", Flag, Common),
        of("f_wma", "br_features_windowsmedia", Flag, Common),
        of("f_gears", "br_features_gears", Flag, Common),
        of("f_ag", "br_features_silverlight", Flag, Common),
        of("res", "dvce_screenwidth", Size("dvce_screenheight"), Common),
        of("vp", "br_viewwidth", Size("br_viewheight"), Common),
        of("ds", "doc_width", Size("doc_height"), Common),
        of("cs", "doc_charset", Text, Common),
        of("url", "page_url", Url("page_url"), Page),
        of("page", "page_title", Text, Page),
        of("refr", "page_referrer", Url("refr_url"), Page),
        of("pp_mix", "pp_xoffset_min", Number, Ping),
        of("pp_max", "pp_xoffset_max", Number, Ping),
        of("pp_miy", "pp_yoffset_min", Number, Ping),
        of("pp_may", "pp_yoffset_max", Number, Ping),
        of("se_ca", "se_category", Text, Structured),
        of("se_ac", "se_action", Text, Structured),
        of("se_la", "se_label", Text, Structured),
        of("se_pr", "se_property", Text, Structured),
        of("se_va", "se_value", Number, Structured),
        of("tr_id", "tr_orderid", Text, Transaction),
        of("tr_af", "tr_affiliation", Text, Transaction),
        of("tr_tt", "tr_total", Number, Transaction),
        of("tr_tx", "tr_tax", Number, Transaction),
        of("tr_sh", "tr_shipping", Number, Transaction),
        of("tr_ci", "tr_city", Text, Transaction),
        of("tr_st", "tr_state", Text, Transaction),
        of("tr_co", "tr_country", Text, Transaction),
        of("tr_cu", "tr_currency", Text, Transaction),
        of("ti_id", "ti_orderid", Text, Item),
        of("ti_sk", "ti_sku", Text, Item),
        of("ti_nm", "ti_name", Text, Item),
        of("ti_ca", "ti_category", Text, Item),
        of("ti_pr", "ti_price", Number, Item),
        of("ti_qu", "ti_quantity", Integer, Item),
        of("ti_cu", "ti_currency", Text, Item),
        of("ad_ba", "ad_banner_id", Text, Ad),
        of("ad_ca", "ad_campaign_id", Text, Ad),
        of("ad_ad", "ad_advertiser_id", Text, Ad),
        of("ad_uid", "ad_user_id", Text, Ad),
    ]
};

/// The values of `p`.
pub(super) const PLATFORMS: [&str; 9] = ["web", "iot", "app", "mob", "pc", "srv", "tv", "cnsl", "headset"];

/// The index of a parameter.
pub(super) fn index_of(name: &str) -> Option<usize> {
    static SORTED: LazyLock<Vec<(&str, usize)>> = LazyLock::new(|| {
        let mut sorted: Vec<_> =
            PARAMETERS.iter().enumerate().map(|(at, parameter)| (parameter.name, at)).collect();
        sorted.sort_unstable();
        sorted
    });
    SORTED.binary_search_by_key(&name, |(name, _)| name).ok().map(|at| SORTED[at].1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_parameter_is_found_by_its_name_and_is_there_once() {
        let names: BTreeSet<&str> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
        assert_eq!(names.len(), PARAMETERS.len());
        for (at, parameter) in PARAMETERS.iter().enumerate() {
            assert_eq!(index_of(parameter.name), Some(at));
        }
        assert_eq!(index_of("nothing"), None);
    }
}
