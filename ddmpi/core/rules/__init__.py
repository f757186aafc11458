"""Rules for one row, without state: may it be asked, what does the answer mean, is it tried again."""
