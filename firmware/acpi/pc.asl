/* DSDT of the PC: i440FX host bridge, PIIX3 ISA bridge, PIIX4 power management. What differs from one machine to the
 * next is not here but in values of the SSDT that acpi_tables.cpp makes:
 *   \CFGM  which devices exist: bits 0-3 COM1-4, 4 parallel port, 5 floppy, 6 i8042, 7 HPET
 *   \PCIL  first address of the PCI memory window below 4 GiB
 * The SSDT also holds the processors. */
DefinitionBlock ("", "DSDT", 1, "VMM", "VMMPC", 1)
{
    External (\CFGM, IntObj)
    External (\PCIL, IntObj)

    /* _STA of a device that is there when all bits of Arg0 are set in \CFGM. */
    Method (HAVE, 1, NotSerialized)
    {
        If ((\CFGM & Arg0) == Arg0) { Return (0x0F) }
        Return (Zero)
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, Zero)

            Method (_CRS, 0, Serialized)
            {
                Name (RBUF, ResourceTemplate ()
                {
                    WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
                    IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                    WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0, 0x0CF7, 0, 0x0CF8)
                    WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0D00, 0xFFFF, 0, 0xF300)
                    DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                        0, 0x000A0000, 0x000BFFFF, 0, 0x00020000)
                    DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                        0, 0x80000000, 0xFEBFFFFF, 0, 0x7EC00000, , , MM32)
                })
                CreateDWordField (RBUF, MM32._MIN, WMIN)
                CreateDWordField (RBUF, MM32._MAX, WMAX)
                CreateDWordField (RBUF, MM32._LEN, WLEN)
                WMIN = \PCIL
                WLEN = WMAX - WMIN + 1
                Return (RBUF)
            }

            /* PIRQ of pin P of slot S: (S + P - 1) mod 4, as the PIIX3 is wired. */
            Name (_PRT, Package ()
            {
                Package () { 0x0000FFFF, 0, \_SB.LNKD, 0 }, Package () { 0x0000FFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x0000FFFF, 2, \_SB.LNKB, 0 }, Package () { 0x0000FFFF, 3, \_SB.LNKC, 0 },
                /* Slot 1 pin A is the power management function's interrupt, wired to the SCI. */
                Package () { 0x0001FFFF, 0, \_SB.LNKS, 0 }, Package () { 0x0001FFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x0001FFFF, 2, \_SB.LNKC, 0 }, Package () { 0x0001FFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x0002FFFF, 0, \_SB.LNKB, 0 }, Package () { 0x0002FFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x0002FFFF, 2, \_SB.LNKD, 0 }, Package () { 0x0002FFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x0003FFFF, 0, \_SB.LNKC, 0 }, Package () { 0x0003FFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x0003FFFF, 2, \_SB.LNKA, 0 }, Package () { 0x0003FFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x0004FFFF, 0, \_SB.LNKD, 0 }, Package () { 0x0004FFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x0004FFFF, 2, \_SB.LNKB, 0 }, Package () { 0x0004FFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x0005FFFF, 0, \_SB.LNKA, 0 }, Package () { 0x0005FFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x0005FFFF, 2, \_SB.LNKC, 0 }, Package () { 0x0005FFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x0006FFFF, 0, \_SB.LNKB, 0 }, Package () { 0x0006FFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x0006FFFF, 2, \_SB.LNKD, 0 }, Package () { 0x0006FFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x0007FFFF, 0, \_SB.LNKC, 0 }, Package () { 0x0007FFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x0007FFFF, 2, \_SB.LNKA, 0 }, Package () { 0x0007FFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x0008FFFF, 0, \_SB.LNKD, 0 }, Package () { 0x0008FFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x0008FFFF, 2, \_SB.LNKB, 0 }, Package () { 0x0008FFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x0009FFFF, 0, \_SB.LNKA, 0 }, Package () { 0x0009FFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x0009FFFF, 2, \_SB.LNKC, 0 }, Package () { 0x0009FFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x000AFFFF, 0, \_SB.LNKB, 0 }, Package () { 0x000AFFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x000AFFFF, 2, \_SB.LNKD, 0 }, Package () { 0x000AFFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x000BFFFF, 0, \_SB.LNKC, 0 }, Package () { 0x000BFFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x000BFFFF, 2, \_SB.LNKA, 0 }, Package () { 0x000BFFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x000CFFFF, 0, \_SB.LNKD, 0 }, Package () { 0x000CFFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x000CFFFF, 2, \_SB.LNKB, 0 }, Package () { 0x000CFFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x000DFFFF, 0, \_SB.LNKA, 0 }, Package () { 0x000DFFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x000DFFFF, 2, \_SB.LNKC, 0 }, Package () { 0x000DFFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x000EFFFF, 0, \_SB.LNKB, 0 }, Package () { 0x000EFFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x000EFFFF, 2, \_SB.LNKD, 0 }, Package () { 0x000EFFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x000FFFFF, 0, \_SB.LNKC, 0 }, Package () { 0x000FFFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x000FFFFF, 2, \_SB.LNKA, 0 }, Package () { 0x000FFFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x0010FFFF, 0, \_SB.LNKD, 0 }, Package () { 0x0010FFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x0010FFFF, 2, \_SB.LNKB, 0 }, Package () { 0x0010FFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x0011FFFF, 0, \_SB.LNKA, 0 }, Package () { 0x0011FFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x0011FFFF, 2, \_SB.LNKC, 0 }, Package () { 0x0011FFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x0012FFFF, 0, \_SB.LNKB, 0 }, Package () { 0x0012FFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x0012FFFF, 2, \_SB.LNKD, 0 }, Package () { 0x0012FFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x0013FFFF, 0, \_SB.LNKC, 0 }, Package () { 0x0013FFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x0013FFFF, 2, \_SB.LNKA, 0 }, Package () { 0x0013FFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x0014FFFF, 0, \_SB.LNKD, 0 }, Package () { 0x0014FFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x0014FFFF, 2, \_SB.LNKB, 0 }, Package () { 0x0014FFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x0015FFFF, 0, \_SB.LNKA, 0 }, Package () { 0x0015FFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x0015FFFF, 2, \_SB.LNKC, 0 }, Package () { 0x0015FFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x0016FFFF, 0, \_SB.LNKB, 0 }, Package () { 0x0016FFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x0016FFFF, 2, \_SB.LNKD, 0 }, Package () { 0x0016FFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x0017FFFF, 0, \_SB.LNKC, 0 }, Package () { 0x0017FFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x0017FFFF, 2, \_SB.LNKA, 0 }, Package () { 0x0017FFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x0018FFFF, 0, \_SB.LNKD, 0 }, Package () { 0x0018FFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x0018FFFF, 2, \_SB.LNKB, 0 }, Package () { 0x0018FFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x0019FFFF, 0, \_SB.LNKA, 0 }, Package () { 0x0019FFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x0019FFFF, 2, \_SB.LNKC, 0 }, Package () { 0x0019FFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x001AFFFF, 0, \_SB.LNKB, 0 }, Package () { 0x001AFFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x001AFFFF, 2, \_SB.LNKD, 0 }, Package () { 0x001AFFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x001BFFFF, 0, \_SB.LNKC, 0 }, Package () { 0x001BFFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x001BFFFF, 2, \_SB.LNKA, 0 }, Package () { 0x001BFFFF, 3, \_SB.LNKB, 0 },
                Package () { 0x001CFFFF, 0, \_SB.LNKD, 0 }, Package () { 0x001CFFFF, 1, \_SB.LNKA, 0 },
                Package () { 0x001CFFFF, 2, \_SB.LNKB, 0 }, Package () { 0x001CFFFF, 3, \_SB.LNKC, 0 },
                Package () { 0x001DFFFF, 0, \_SB.LNKA, 0 }, Package () { 0x001DFFFF, 1, \_SB.LNKB, 0 },
                Package () { 0x001DFFFF, 2, \_SB.LNKC, 0 }, Package () { 0x001DFFFF, 3, \_SB.LNKD, 0 },
                Package () { 0x001EFFFF, 0, \_SB.LNKB, 0 }, Package () { 0x001EFFFF, 1, \_SB.LNKC, 0 },
                Package () { 0x001EFFFF, 2, \_SB.LNKD, 0 }, Package () { 0x001EFFFF, 3, \_SB.LNKA, 0 },
                Package () { 0x001FFFFF, 0, \_SB.LNKC, 0 }, Package () { 0x001FFFFF, 1, \_SB.LNKD, 0 },
                Package () { 0x001FFFFF, 2, \_SB.LNKA, 0 }, Package () { 0x001FFFFF, 3, \_SB.LNKB, 0 }
            })

            /* The ISA bridge, PIIX3 function 0. */
            Device (ISA)
            {
                Name (_ADR, 0x00010000)
                OperationRegion (P40C, PCI_Config, 0x60, 4)
                Field (P40C, ByteAcc, NoLock, Preserve) { PRQ0, 8, PRQ1, 8, PRQ2, 8, PRQ3, 8 }

                Device (PIC)
                {
                    Name (_HID, EisaId ("PNP0000"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0020, 0x0020, 0, 2)
                        IO (Decode16, 0x00A0, 0x00A0, 0, 2)
                        IO (Decode16, 0x04D0, 0x04D0, 0, 2)
                        IRQNoFlags () { 2 }
                    })
                }
                Device (TIMR)
                {
                    Name (_HID, EisaId ("PNP0100"))
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0040, 0x0040, 0, 4) IRQNoFlags () { 0 } })
                }
                Device (DMAC)
                {
                    Name (_HID, EisaId ("PNP0200"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0000, 0x0000, 0, 0x10)
                        IO (Decode16, 0x0081, 0x0081, 0, 0x0F)
                        IO (Decode16, 0x00C0, 0x00C0, 0, 0x20)
                        DMA (Compatibility, NotBusMaster, Transfer8_16) { 4 }
                    })
                }
                Device (SPKR)
                {
                    Name (_HID, EisaId ("PNP0800"))
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0061, 0x0061, 0, 1) })
                }
                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0070, 0x0070, 1, 8) IRQNoFlags () { 8 } })
                }
                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Method (_STA) { Return (HAVE (0x40)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0060, 0x0060, 1, 1)
                        IO (Decode16, 0x0064, 0x0064, 1, 1)
                        IRQNoFlags () { 1 }
                    })
                }
                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Method (_STA) { Return (HAVE (0x40)) }
                    Name (_CRS, ResourceTemplate () { IRQNoFlags () { 12 } })
                }
                Device (FDC0)
                {
                    Name (_HID, EisaId ("PNP0700"))
                    Method (_STA) { Return (HAVE (0x20)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x03F2, 0x03F2, 0, 4)
                        IO (Decode16, 0x03F7, 0x03F7, 0, 1)
                        IRQNoFlags () { 6 }
                        DMA (Compatibility, NotBusMaster, Transfer8) { 2 }
                    })
                }
                Device (LPT1)
                {
                    Name (_HID, EisaId ("PNP0400"))
                    Name (_UID, 1)
                    Method (_STA) { Return (HAVE (0x10)) }
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0378, 0x0378, 8, 8) IRQNoFlags () { 7 } })
                }
                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 1)
                    Method (_STA) { Return (HAVE (1)) }
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x03F8, 0x03F8, 0, 8) IRQNoFlags () { 4 } })
                }
                Device (COM2)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 2)
                    Method (_STA) { Return (HAVE (2)) }
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x02F8, 0x02F8, 0, 8) IRQNoFlags () { 3 } })
                }
                Device (COM3)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 3)
                    Method (_STA) { Return (HAVE (4)) }
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x03E8, 0x03E8, 0, 8) IRQNoFlags () { 4 } })
                }
                Device (COM4)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 4)
                    Method (_STA) { Return (HAVE (8)) }
                    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x02E8, 0x02E8, 0, 8) IRQNoFlags () { 3 } })
                }
            }

            /* Ports of the power management function that no other device names. */
            Device (PMRS)
            {
                Name (_HID, EisaId ("PNP0C02"))
                Name (_UID, 1)
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x0600, 0x0600, 0, 0x40)
                    IO (Decode16, 0x0700, 0x0700, 0, 0x10)
                    IO (Decode16, 0x00B2, 0x00B2, 0, 2)
                    IO (Decode16, 0x0092, 0x0092, 0, 1)
                })
            }
        }

        Device (HPET)
        {
            Name (_HID, EisaId ("PNP0103"))
            Name (_UID, Zero)
            Method (_STA) { Return (HAVE (0x80)) }
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadOnly, 0xFED00000, 0x400) })
        }

        /* The interrupt links. A PIRQ register holds an ISA interrupt number, or bit 7 for "not routed". */
        Method (LSTA, 1, NotSerialized)
        {
            If (Arg0 & 0x80) { Return (0x09) }
            Return (0x0B)
        }
        Method (LCRS, 1, Serialized)
        {
            Name (RBUF, ResourceTemplate () { Interrupt (, Level, ActiveHigh, Shared) { 0 } })
            CreateDWordField (RBUF, 0x05, GSI)
            If (Arg0 < 0x80) { GSI = Arg0 }
            Return (RBUF)
        }
        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0)
            Name (_PRS, ResourceTemplate () { Interrupt (, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQ0)) }
            Method (_DIS) { \_SB.PCI0.ISA.PRQ0 |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQ0)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 0x05, GSI)
                \_SB.PCI0.ISA.PRQ0 = GSI
            }
        }
        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 1)
            Name (_PRS, ResourceTemplate () { Interrupt (, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQ1)) }
            Method (_DIS) { \_SB.PCI0.ISA.PRQ1 |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQ1)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 0x05, GSI)
                \_SB.PCI0.ISA.PRQ1 = GSI
            }
        }
        Device (LNKC)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 2)
            Name (_PRS, ResourceTemplate () { Interrupt (, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQ2)) }
            Method (_DIS) { \_SB.PCI0.ISA.PRQ2 |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQ2)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 0x05, GSI)
                \_SB.PCI0.ISA.PRQ2 = GSI
            }
        }
        Device (LNKD)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 3)
            Name (_PRS, ResourceTemplate () { Interrupt (, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQ3)) }
            Method (_DIS) { \_SB.PCI0.ISA.PRQ3 |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQ3)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 0x05, GSI)
                \_SB.PCI0.ISA.PRQ3 = GSI
            }
        }
        Device (LNKS)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 4)
            Name (_PRS, ResourceTemplate () { Interrupt (, Level, ActiveHigh, Shared) { 9 } })
            Method (_STA) { Return (0x0B) }
            Method (_DIS) {}
            Method (_CRS) { Return (_PRS) }
            Method (_SRS, 1) {}
        }
    }

    Name (\_S5, Package () { 0, 0, 0, 0 })
}
