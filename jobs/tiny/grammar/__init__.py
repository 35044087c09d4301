"""The grammar of spire-tiny's ten languages: tables of sentences, and words for numbers, dates, times and prices."""
