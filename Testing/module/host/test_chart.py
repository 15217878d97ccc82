"""The chart along z, clicked as in the application: Python holds nothing that is observed."""

from __future__ import annotations


def test_two_hundred_clicks_with_garbage_collections(clinic, phantom):
    clinic.load(phantom[0])
    clinic.segment()
    for n in range(200):
        k = (5 * n) % clinic.tab.case.size()[0]
        clinic.tab.plot.click(k)
        assert clinic.tab.case.current_slice() == k


def test_one_current_slice_makes_no_noise(clinic, phantom):
    clinic.load(phantom[0])
    clinic.tab.case.jump(6)
    clinic.ui.scopeSelector.currentIndex = 1
    clinic.segment()
    clinic.ui.scopeSelector.currentIndex = 0
    assert not clinic.session.error
