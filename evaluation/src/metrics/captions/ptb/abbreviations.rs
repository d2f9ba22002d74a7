//! Words whose full stop belongs to them. Found by giving the reference all words of up to four letters, and
//! some hundred thousand longer ones, with a stop and each of several things behind it.

/// A sentence may end behind them: before a capital letter the stop is read twice. In any case of letters.
pub(super) const ENDING: &str = "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct \
    dak dec esq est etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon \
    mont neb nev nov oct okla penn plc rd rt sep sept seq sq sr sys tel tenn thu tue tues univ va vt wed wis \
    wisc wyo";

/// The same, not in capitals.
pub(super) const ENDING_SMALL: &str = "ppte ppty pte ptes pty ptys";

/// The same, with a capital only: words otherwise.
pub(super) const ENDING_CAPITAL: &str = "ark az del ill la mass miss ore pa tex wash";

/// Something follows, as a name follows a title. In any case of letters.
pub(super) const TITLE: &str = "adj adm adv alex asst atty ave brig capt cf cie cmdr col cpl dept det dr drs \
    elec ens ft gen gov govs hon insp invt jos lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof \
    pvt rep reps rev sen sens sfc sgt spc st ste supt vs wm";

/// The same, not in capitals.
pub(super) const TITLE_SMALL: &str = "mfg mtg";

/// Before a number only.
pub(super) const NUMBERED: &str = "art ca fig figs no nos op pp prop";

/// With a capital behind initials and a blank, these begin a sentence.
pub(super) const BEGINNINGS: &str = "a an as at he if in it so we but her now one our she the yet you here \
    last many more once some such that then they this what when about according additionally after earlier \
    however other since their there these while";

/// What comes behind the stop of a file's name.
pub(super) const FILES: &str = "c h x gz pl ps py bat bmp cgi cpp dll doc exe gif htm jar jpg mov mp3 pdf php \
    png ppt sql tar txt wav xml zip docx html java jpeg";

/// One pattern for all of these words, each as `form` writes it.
pub(super) fn any_of(words: &str, form: impl Fn(&str) -> String) -> String {
    words.split_whitespace().map(form).collect::<Vec<_>>().join("|")
}

/// A word in any case of letters. Of ASCII alone: by Unicode's rules `s` would be a long s too.
pub(super) fn in_any_case(word: &str) -> String {
    word.chars().map(|c| format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase())).collect()
}

/// `pty`, `Pty`.
pub(super) fn small(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{}{rest}", in_any_case(first))
}

/// `Mass`, `MASS`.
pub(super) fn capital(word: &str) -> String {
    let (first, rest) = (word[..1].to_uppercase(), &word[1..]);
    format!("{first}(?:{rest}|{})", rest.to_uppercase())
}

/// `The`, `THE`, `ThE`.
pub(super) fn beginning(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    format!("{}{}", first.to_uppercase(), in_any_case(rest))
}
