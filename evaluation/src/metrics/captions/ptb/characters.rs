//! Which characters are letters, digits and symbols for the reference: those of Unicode 6.1 and some that
//! only it takes for letters. Found by giving it each character of the basic plane in sixteen surroundings.

/// Letters.
pub(super) const LETTERS: &str = concat!(
    r"[[\p{L}&&\p{age:6.1}]\u{1885}\u{1886}",
    r"--[\u{10000}-\u{10ffff}\u{1878}\u{19b0}-\u{19c0}\u{19c8}-\u{19c9}\u{1cf2}\u{1cf3}]]",
);

/// Decimal digits.
pub(super) const DIGITS: &str = r"[\p{Nd}&&\p{age:6.1}--[\u{10000}-\u{10ffff}]]";

/// Marks that are part of words, but not of words with hyphens.
pub(super) const MARKS: &str = concat!(
    r"[\u{2c2}-\u{2c5}\u{2d2}-\u{2df}\u{2e5}-\u{2eb}\u{2ed}\u{2ef}-\u{36f}\u{375}\u{378}-\u{379}\u{384}-\u{385}",
    r"\u{3f6}\u{483}-\u{487}\u{55a}-\u{55f}\u{591}-\u{5bd}\u{5bf}\u{5c1}-\u{5c2}\u{5c4}-\u{5c5}\u{5c7}",
    r"\u{615}-\u{61a}\u{64b}-\u{65e}\u{670}\u{6d6}-\u{6e4}\u{6e7}-\u{6ed}\u{6fd}-\u{6fe}\u{70f}\u{711}",
    r"\u{730}-\u{74c}\u{7a6}-\u{7b0}\u{7eb}-\u{7f3}\u{900}-\u{903}\u{93c}\u{93e}-\u{94e}\u{951}-\u{955}",
    r"\u{962}-\u{963}\u{981}-\u{983}\u{9bc}\u{9be}-\u{9c4}\u{9c7}-\u{9c8}\u{9cb}-\u{9cd}\u{9d7}\u{9e2}-\u{9e3}",
    r"\u{a01}-\u{a03}\u{a3c}\u{a3e}-\u{a4f}\u{a81}-\u{a83}\u{abc}\u{abe}-\u{acf}\u{b82}\u{bbe}-\u{bc2}",
    r"\u{bc6}-\u{bc8}\u{bca}-\u{bcd}\u{c01}-\u{c03}\u{c3e}-\u{c56}\u{d3e}-\u{d44}\u{d46}-\u{d48}\u{e31}",
    r"\u{e34}-\u{e3a}\u{e47}-\u{e4e}\u{eb1}\u{eb4}-\u{ebc}\u{ec8}-\u{ecd}]",
);

/// Symbols, each a token of its own.
pub(super) const SYMBOLS: &str = concat!(
    r"[$%&;=\\\^|\x7e\u{a1}\u{a5}-\u{a9}\u{ac}\u{ae}-\u{b1}\u{b4}\u{b6}-\u{b8}\u{bf}\u{d7}\u{f7}\u{37e}\u{387}",
    r"\u{589}\u{5be}\u{5c0}\u{5c3}\u{5c6}\u{5f3}-\u{5f4}\u{600}-\u{603}\u{606}-\u{60c}\u{614}\u{61b}",
    r"\u{61e}-\u{61f}\u{66a}\u{66d}\u{6d4}\u{700}-\u{70d}\u{7f6}-\u{7f8}\u{964}-\u{965}\u{e3f}\u{e4f}\u{1fbd}",
    r"\u{2016}-\u{2017}\u{2020}-\u{2023}\u{2030}-\u{2038}\u{203b}\u{203e}-\u{2042}\u{2044}\u{207a}-\u{207e}",
    r"\u{208a}-\u{208e}\u{20a4}\u{2100}-\u{2101}\u{2103}-\u{2106}\u{2108}-\u{2109}\u{2114}\u{2116}-\u{2118}",
    r"\u{211e}-\u{2123}\u{2125}\u{2127}\u{2129}\u{212e}\u{213a}-\u{213b}\u{2140}-\u{2144}\u{214a}-\u{214d}",
    r"\u{214f}\u{2155}-\u{215e}\u{2190}-\u{2bff}\u{3001}-\u{3002}\u{3012}\u{30fb}\u{ff01}-\u{ff0f}",
    r"\u{ff1a}-\u{ff20}\u{ff3b}-\u{ff40}\u{ff5b}-\u{ff65}\u{ffe0}-\u{ffe1}\u{ffe5}-\u{ffe6}]",
);
