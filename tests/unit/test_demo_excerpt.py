"""ambient.demo.excerpt: real lines, shortened where an ellipsis says so."""

from hypothesis import given
from hypothesis import strategies as st

from ambient.demo.excerpt import field_of, fold, log_excerpt, metric_excerpt, table_excerpt

LINE = (
    "2026-01-02T03:04:05.678901Z\terror\taccess\tconnection complete\tsrc.addr=10.11.0.1:4 src.workload=\"web\" "
    'direction="inbound" bytes_sent=0 error="denied by: shop/p (rule 0)" reason=policy_denied path=tunnel'
)  # fmt: skip


def test_a_log_line_keeps_the_named_fields_in_their_order() -> None:
    assert log_excerpt(LINE, ("src.workload", "error", "reason")) == (
        '2026-01-02T03:04:05.678901Z error access … src.workload="web" … error="denied by: shop/p',
        '  (rule 0)" reason=policy_denied …',
    )
    assert log_excerpt("", ("error",)) == ("(no such line)",)


def test_a_field_without_its_quotes() -> None:
    assert field_of(LINE, "error") == "denied by: shop/p (rule 0)"
    assert field_of(LINE, "reason") == "policy_denied"
    assert field_of(LINE, "policy") == ""


def test_a_metric_keeps_name_value_and_the_named_labels() -> None:
    line = 'opened_total{reporter="source",source_app="web",response_flags="-"} 3'
    assert metric_excerpt(line, ("reporter", "response_flags")) == ('opened_total{reporter="source", response_flags="-", …} 3',)
    assert metric_excerpt("up 1", ("reporter",)) == ("up 1",)


def test_columns_beyond_the_width_follow_on_their_own_line() -> None:
    assert table_excerpt("NAME  WHY\nweb   allowed by default", 20) == ("NAME  WHY", "web", "    allowed by default")


@given(st.lists(st.text("ab", min_size=1, max_size=30)), st.integers(5, 40))
def test_folding_loses_no_word_and_keeps_the_width_where_words_allow(words: list[str], width: int) -> None:
    lines = fold(words, width=width)
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)
