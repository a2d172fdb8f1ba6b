"""The form in which names of companies are compared."""

import pytest

from app.domain.names import fold_name


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Ærø Møbler A/S", "aro mobler a s"),
        ("Mueller & Soehne", "muller & sohne"),
        ("Müller & Söhne", "muller & sohne"),
        ("Aarhus Bluequeen Aae", "arhus bluqun a"),
        ("Cafe\u0301 du\u00a0Nord", "cafe du nord"),  # decomposed, no-break space
        ("Café  du \t Nord ", "cafe du nord"),
        ("STRAẞE & Größe", "strasse & grosse"),
        ("O’Brien’s “Best” Ltd.", "obriens best ltd"),
        ("Smith-Jones (UK), Inc.", "smith jones uk inc"),
        ("Ａｃｍｅ ﬁlms™", "acme films"),  # full width, ligature
        ("Ac\u00adme\u200b", "acme"),
        ("İstanbul Kırtasiye", "istanbul kirtasiye"),
        ("東京 株式会社", "東京 株式会社"),
        ("H&M 100%", "h&m 100%"),
        ("– / –", "– / –"),
        ("", ""),
    ],
)
def test_a_name_is_folded_to_what_people_type(name: str, folded: str) -> None:
    """Folding twice changes nothing."""
    assert fold_name(name) == folded
    assert fold_name(folded) == folded


@pytest.mark.parametrize("name", ["Bluequeen", "Aarhus", "Müller", "Goetheaer", "Straße", "Ærøe"])
def test_the_beginning_of_a_word_is_folded_to_the_beginning_of_its_form(name: str) -> None:
    """So that each letter that is typed narrows the search."""
    for length in range(1, len(name)):
        assert fold_name(name).startswith(fold_name(name[:length]))
