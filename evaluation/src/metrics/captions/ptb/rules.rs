//! What a token is: patterns, in the order in which equally long matches count.
//!
//! A pattern may hold names in braces ([`NAMES`] and lists of [`abbreviations`](super::abbreviations)) and
//! words between tildes, which stand for the word in any case of letters. A pattern may match more than its
//! token, for what has to follow; [`Take`] says what of it is the token.

use super::abbreviations::{self, any_of, beginning, capital, in_any_case, small};
use super::characters::{DIGITS, LETTERS, MARKS, SYMBOLS};

/// What of a match is the token. What is behind it is read again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Take {
    /// All of it.
    All,
    /// The first characters.
    First(usize),
    /// All but the last characters.
    AllBut(usize),
    /// What is before the last of these.
    Before(&'static [char]),
    /// The beginning up to the first full stop, with it.
    ToStop,
    /// The beginning up to the first white space; the last character, a full stop, is a token once more.
    ToBlankAndStopAgain,
    /// Nothing: it is no token.
    Nothing,
}

/// How a token is printed, in lower case in any case.
#[derive(Debug, Clone, Copy)]
pub(super) enum Writing {
    /// Without soft hyphens.
    Plain,
    /// As this.
    As(&'static str),
    /// With apostrophes of ASCII.
    Clitic,
    /// With `&` for its entity.
    Ampersand,
    /// With blanks that break no line.
    WithoutBlanks,
    /// The same, and round brackets as the treebank has them.
    WithoutBrackets,
    /// Each quotation mark as the treebank has it.
    Quotes,
}

/// A pattern, and what is made of what it matches.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) pattern: &'static str,
    pub(super) take: Take,
    pub(super) writing: Writing,
}

const fn rule(pattern: &'static str, take: Take, writing: Writing) -> Rule {
    Rule { pattern, take, writing }
}

const fn whole(pattern: &'static str) -> Rule {
    rule(pattern, Take::All, Writing::Plain)
}

const fn written(pattern: &'static str, text: &'static str) -> Rule {
    rule(pattern, Take::All, Writing::As(text))
}

/// All rules.
pub(super) const RULES: &[Rule] = &[
    // Words that are two.
    rule(r"~cannot~", Take::First(3), Writing::Plain),
    rule(r"~gonna~|~gotta~|~lemme~|~gimme~|~wanna~", Take::First(3), Writing::Plain),
    rule(r"'~tis~|'~twas~", Take::First(2), Writing::Plain),
    // Markup.
    rule(r"{tag}", Take::All, Writing::WithoutBlanks),
    written(r"&(?:~md~|~mdash~|~ndash~);", "--"),
    written(r"&~amp~;", "&"),
    written(r"&~lt~;", "<"),
    written(r"&~gt~;", ">"),
    rule(r"&~nbsp~;", Take::Nothing, Writing::Plain),
    whole(r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);"),
    // Faces, and marks that are doubled.
    rule(
        r"\([\-\^x=\x7e<>'][_.]?[\-\^x=\x7e<>']\)|\([\^x=\x7e<>']-[\^x=\x7e<>'`]\)",
        Take::All,
        Writing::WithoutBrackets,
    ),
    rule(r"[<>]?[:;=]['\-o*]?[()DPdpO\\{@|\[\]][^A-Za-z0-9]", Take::AllBut(1), Writing::WithoutBrackets),
    whole(r"\\\*"),
    whole(r"[oO]{any_apostrophe}[oO]"),
    whole(r"#{2,}|@{2,}|<<|>>"),
    whole(r"[\-\^x=\x7e<>']_[\-\^x=\x7e<>']"),
    // Words, and what is cut off their ends.
    whole(r"{word}"),
    whole(r"~anti~-|~pro~-"),
    rule(
        r"[A-Za-z\u{ad}]*[A-MO-Za-mo-z]\u{ad}*[nN]{any_apostrophe}[tT]",
        Take::Before(&['n', 'N']),
        Writing::Plain,
    ),
    rule(r"{word}{clitic}", Take::Before(&['\'', '\u{92}', '\u{2019}', '&']), Writing::Plain),
    rule(r"[nN]{any_apostrophe}[tT]", Take::All, Writing::Clitic),
    rule(r"{clitic}[^A-Za-z]", Take::AllBut(1), Writing::Clitic),
    // Abbreviations.
    whole(r"{ending}\."),
    rule(r"{ending}\.(?:{space}+(?:[A-Z]|{tag})|{space}{2,})", Take::ToBlankAndStopAgain, Writing::Plain),
    rule(r"{ending}\.{any}{any}", Take::AllBut(2), Writing::Plain),
    whole(r"{title}\."),
    rule(r"{numbered}\.{space}*{digit}", Take::ToStop, Writing::Plain),
    whole(r"(?:[A-Za-z]|{initials})\."),
    rule(r"[A-Za-z]\.{space}+{sentence}{space}", Take::First(1), Writing::Plain),
    rule(r"{initials}\.{space}+{sentence}{space}", Take::ToBlankAndStopAgain, Writing::Plain),
    rule(r"(?:{word}|{thing}|{hyphenated})\.[,;:]", Take::AllBut(1), Writing::Plain),
    // Addresses.
    whole(r"(?:https?|ftps?)://[^ \t\n\r\u{a0}\x22<>|(){}]+[^ \t\n\r\u{a0}\x22<>|.!?(){},\-]"),
    whole(concat!(
        r"(?:www\.(?:[^ \t\n\r\f\u{a0}\x22<>|.!?(){},]+\.)+[A-Za-z]{2,4}",
        r"|(?:[^ \t\n\r\f\u{a0}\x22`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu))",
        r"(?:/[^ \t\n\r\f\u{a0}\x22<>|()]+[^ \t\n\r\f\u{a0}\x22<>|.!?(){},\-])?",
    )),
    whole(concat!(
        r"<?[a-zA-Z0-9][^ \t\n\r\u{a0}\x22<>|(){}]*",
        r"@(?:[^ \t\n\r\u{a0}\x22<>|().{}]+\.)*[^ \t\n\r\u{a0}\x22<>|().{}]+>?",
    )),
    whole(r"@[A-Za-z_][A-Za-z0-9_]*"),
    whole(r"#{letter}+"),
    // Words with an apostrophe.
    whole(r"[A-HJ-XZn]{any_apostrophe}{letter}{2,}"),
    whole(r"{letter}+[aeiouyAEIOUY]{any_apostrophe}[aeiouA-Z]{letter}*"),
    whole(r"(?:[jJdDlL]|[oO][lL]){apostrophe}"),
    rule(r"[yY]{apostrophe}{letter}", Take::AllBut(1), Writing::Plain),
    whole(r"{apostrophe}(?:~em~|~n~{apostrophe}?|~til~[lL]?|~cause~)"),
    whole(r"(?:~cap~{apostrophe}~n~|(?:~somethin~|~dunkin~){apostrophe})"),
    whole(r"~c~'~mon~|~e~'~er~|~s~'~mores~|~ev~'~ry~|~li~'~l~|~nor~'~easter~|~nat~'~l~"),
    rule(r"{apostrophe}[0-9]{2}{space}", Take::AllBut(1), Writing::Plain),
    whole(r"{apostrophe}[2-9]0[sS]"),
    // Numbers.
    whole(r"[+\-]?(?:{digit}+|{digit}*(?:[.:,\u{ad}\u{66b}\u{66c}]{digit}+)+)"),
    rule(
        r"(?:{digit}{1,4}[\- \u{a0}])?{digit}{1,4}(?:\\?/|\u{2044}){digit}{1,4}",
        Take::All,
        Writing::WithoutBlanks,
    ),
    whole(r"{digit}{1,2}[/\-]{digit}{1,2}[/\-]{digit}{2,4}"),
    rule(
        concat!(
            r"(?:\([0-9]{2,3}\)[ \u{a0}]?|\+{0,2}(?:[0-9]{2,4}[\- \u{a0}])?[0-9]{2,4}[\- \u{a0}])",
            r"[0-9]{3,4}[\- \u{a0}]?[0-9]{3,5}",
        ),
        Take::All,
        Writing::WithoutBrackets,
    ),
    whole(r"\+{0,2}(?:[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"),
    // Hyphens, slashes, ampersands, files.
    whole(r"{thing}"),
    whole(r"{hyphenated}"),
    whole(r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"),
    rule(r"[A-Z]+(?:(?:[&+]|&~amp~;)[A-Z]+)+", Take::All, Writing::Ampersand),
    rule(
        r"(?:{letter}|{digit})+(?:\.(?:{letter}|{digit})+)*\.{file}[ \t\n\u{a0}.?!,]",
        Take::AllBut(1),
        Writing::Plain,
    ),
    // Marks.
    whole(r"[!?]+"),
    whole(r"[.,;:]"),
    written(r"\.{3,5}|\.(?:[ \u{a0}]\.){2,4}|\u{2026}", "..."),
    written(r"-{2,4}|[\u{96}\u{97}\u{2013}-\u{2015}]", "--"),
    whole(r"-{5,}|-"),
    written(r"\(", "-lrb-"),
    written(r"\)", "-rrb-"),
    written(r"\[", "-lsb-"),
    written(r"\]", "-rsb-"),
    written(r"\{", "-lcb-"),
    written(r"\}", "-rcb-"),
    whole(r"-[lrLR][rscRSC][bB]-"),
    // Quotation marks.
    rule(r"\x22[A-Za-z0-9$]", Take::First(1), Writing::As("``")),
    written(r"\x22", "''"),
    rule(r"&~quot~;[A-Za-z0-9$]", Take::AllBut(1), Writing::As("``")),
    written(r"&~quot~;", "''"),
    rule(r"'[A-Za-z][^ \t\n\r\u{a0}]", Take::First(1), Writing::As("`")),
    rule(r"{clitic}", Take::All, Writing::Clitic),
    written(r"'|&apos;", "'"),
    whole(r"''|`|``"),
    rule(
        r"[`\u{91}-\u{94}\u{2018}\u{2019}\u{201b}-\u{201d}\u{2039}\u{203a}\u{ab}\u{bb}]{1,2}",
        Take::All,
        Writing::Quotes,
    ),
    // Symbols.
    whole(r"\*+|_+|[<>+#/@]"),
    whole(r"[\u{b2}\u{b3}\u{b9}\u{201a}\u{201e}\u{201f}\u{2070}\u{2074}-\u{2079}\u{2080}-\u{2089}]+"),
    whole(r"{symbol}"),
    written(r"[\u{80}\u{a4}\u{20a0}\u{20ac}]", "$"),
    written(r"\u{a2}", "cents"),
    written(r"\u{a3}", "#"),
    written(r"\u{bc}", "1/4"),
    written(r"\u{bd}", "1/2"),
    written(r"\u{be}", "3/4"),
    written(r"\u{2153}", "1/3"),
    written(r"\u{2154}", "2/3"),
    whole(r"[A-Z]+\$"),
    whole(r"[cC]\+\+|[cCfF]#"),
];

/// Names in patterns. One may hold names that come behind it.
const NAMES: &[(&str, &str)] = &[
    // What begins a sentence behind initials.
    ("{sentence}", r"(?:{beginning}|(?:Mr|MR|Ms|MS)\.|{tag})"),
    // An element's begin or end, a declaration.
    (
        "{tag}",
        concat!(
            r"<(?:[!?][A-Za-z\-][^>\n]*|/[A-Za-z][A-Za-z0-9_:.\-]* *|[A-Za-z][A-Za-z0-9_:.\-]*",
            r"(?: +[A-Za-z][A-Za-z0-9_:.\-]*(?: *= *(?:'[^']*'|\x22[^\x22]*\x22))?)* */? *)>",
        ),
    ),
    // Letters, stops and marks inside: `and`, `wow!hello`, `a.b`.
    ("{word}", r"{letter}(?:{letter}|{digit})*(?:[.!?]{letter}(?:{letter}|{digit})*)*"),
    // `t-shirt`, `5th`, `horse_dog`, `o'neil-smith`.
    ("{thing}", r"(?:{elided}|{alphanumeric}+)(?:[\-_\u{58a}\u{2010}\u{2011}](?:{elided}|{alphanumeric}+))*"),
    // The same in ASCII, where the beginning may hold marks and the end initials: `1,5-inch`, `pre-u.s.`.
    ("{hyphenated}", r"[A-Za-z0-9][A-Za-z0-9.,\u{ad}]*(?:-(?:[A-Za-z0-9\u{ad}]+|{initials}\.))+"),
    // `d'angelo`.
    ("{elided}", r"[dDoOlL]{any_apostrophe}{alphanumeric}{2,}"),
    ("{initials}", r"(?:[A-Za-z](?:\.[A-Za-z])+|[pP][hH]\.[dD]|[eE][dD]\.[dD])"),
    ("{clitic}", r"{apostrophe}(?:~s~|~m~|~d~|~ll~|~re~|~ve~)"),
    ("{apostrophe}", r"(?:['\u{92}\u{2019}]|&apos;)"),
    ("{any_apostrophe}", r"(?:['`\u{91}\u{92}\u{2018}\u{2019}\u{201b}]|&apos;)"),
    ("{letter}", r"(?:{letters}|{marks}|\u{ad}|&[aeiouAEIOU](?:acute|grave|uml);)"),
    ("{alphanumeric}", r"[{letters}{digit}\u{ad}]"),
    ("{letters}", LETTERS),
    ("{marks}", MARKS),
    ("{digit}", DIGITS),
    ("{symbol}", SYMBOLS),
    ("{space}", r"[ \t\n\u{a0}\u{2000}-\u{200a}\u{3000}]"),
    ("{any}", r"(?s:.)"),
];

/// A pattern of [`RULES`] as a regular expression.
pub(super) fn expanded(pattern: &str) -> String {
    let mut expanded = pattern.to_owned();
    for (name, meaning) in NAMES {
        expanded = expanded.replace(name, meaning);
    }
    for (name, list) in lists() {
        if expanded.contains(name) {
            expanded = expanded.replace(name, &format!("(?:{list})"));
        }
    }
    // Every second part is between tildes.
    let parts = expanded.split('~').enumerate();
    parts.map(|(nth, part)| if nth % 2 == 1 { in_any_case(part) } else { part.to_owned() }).collect()
}

/// The lists of abbreviations as patterns.
fn lists() -> [(&'static str, String); 5] {
    let ending = [
        any_of(abbreviations::ENDING, in_any_case),
        any_of(abbreviations::ENDING_SMALL, small),
        any_of(abbreviations::ENDING_CAPITAL, capital),
    ];
    let title = [any_of(abbreviations::TITLE, in_any_case), any_of(abbreviations::TITLE_SMALL, small)];
    [
        ("{ending}", ending.join("|")),
        ("{title}", title.join("|")),
        ("{numbered}", any_of(abbreviations::NUMBERED, in_any_case)),
        ("{beginning}", any_of(abbreviations::BEGINNINGS, beginning)),
        ("{file}", any_of(abbreviations::FILES, in_any_case)),
    ]
}
